const TEXT = "This text stands in main.js.";

// Vite keeps this object when it replaces the module, so the count survives a change of the text.
const state = import.meta.hot?.data ?? {};
state.count ??= 0;

const button = document.querySelector("#button");

function show() {
  document.querySelector("#text").textContent = TEXT;
  button.textContent = `Counted to ${state.count}`;
}

button.onclick = () => {
  state.count += 1;
  show();
};
show();

import.meta.hot?.accept();
