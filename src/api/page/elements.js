
// -- Elements and words. Whatever comes from elsewhere is set as text: nothing is ever parsed as HTML.
const at = (id) => document.getElementById(id);
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
const button = (text, onclick, attributes) => make("button", { type: "button", text, onclick, ...attributes });

// What does not show, or turns the direction of what follows, is spelt out, so that a name looks like
// what it is. Joiners stay: emoji and some scripts need them.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
const spelt = (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
const seen = (text) => String(text ?? "").replace(UNSEEN, spelt);
const oneLine = (text) => seen(text).replace(/\n/g, "\\n").replace(/\t/g, "\\t");
const cut = (text, most) => text.length > most ? `${text.slice(0, most)}…` : text;

// Makes the children of `list` those of `items`, in order. An element whose item is still there stays,
// and keeps its focus and what is open in it.
function sync(list, items, key, create, update) {
  const old = new Map([...list.children].map((child) => [child.dataset.key, child]));
  let place = list.firstElementChild;
  for (const item of items) {
    const id = key(item);
    let child = old.get(id);
    if (child) old.delete(id);
    else {
      child = create(item);
      child.dataset.key = id;
    }
    update?.(child, item);
    if (child === place) place = place.nextElementSibling;
    else list.insertBefore(child, place);
  }
  for (const child of old.values()) child.remove();
}

const plural = (n, one, many) => `${n.toLocaleString("en")} ${n === 1 ? one : many || `${one}s`}`;
function size(bytes) {
  let n = bytes, unit = 0;
  while (n >= 1000 && unit < 4) { n /= 1000; unit += 1; }
  return `${unit === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${["B", "kB", "MB", "GB", "TB"][unit]}`;
}
function span(ms) {
  const s = Math.max(0, ms) / 1000;
  if (s < 1) return `${Math.round(ms)} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.floor(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s % 86400 / 3600)} h`;
}
// Of what goes on: in whole seconds.
const lasting = (ms) => ms < 60_000 ? `${Math.max(0, Math.floor(ms / 1000))} s` : span(ms);
const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
const moment = (ms) => Date.now() - ms < 20 * 3600e3 ? clock(ms) : `${new Date(ms).toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ${clock(ms)}`;

// Texts that change with time: each element that has one is asked again every second, while it is there.
const ticking = new Map();
function tick(element, text) {
  ticking.set(element, text);
  element.textContent = text();
  return element;
}
setInterval(() => {
  for (const [element, text] of ticking) {
    if (!element.isConnected) ticking.delete(element);
    else if (!document.hidden) element.textContent = text();
  }
}, 1000);

// Short news, said to screen readers as well.
const TOASTS = 3, TOAST_MS = 6000;
function tell(text, tone) {
  const toast = make("p", { class: "toast", "data-tone": tone || "good", text: seen(text) });
  at("toasts").append(toast);
  while (at("toasts").children.length > TOASTS) at("toasts").firstChild.remove();
  setTimeout(() => toast.remove(), TOAST_MS);
}

// A button of one sign, with a name for who cannot see what the sign means.
const sign = (text, name, onclick) => button(text, onclick, { class: "quiet small sign", "aria-label": name, title: name });
// One that asks once more before it does what cannot be undone.
function twice(text, name, action) {
  let timer;
  const show = (element, sure) => {
    clearTimeout(timer);
    element.classList.toggle("sure", sure);
    element.textContent = sure ? "Really?" : text;
    element.setAttribute("aria-label", sure ? `Really? ${name}` : name);
  };
  return sign(text, name, ({ currentTarget: element }) => {
    if (element.classList.contains("sure")) { show(element, false); action(element); return; }
    show(element, true);
    timer = setTimeout(show, 4000, element, false);
  });
}

// Runs what a button started; meanwhile the button is off and says so. An error is put in words.
async function busy(element, text, action, error) {
  const [before, focused] = [element.textContent, document.activeElement === element];
  if (text) element.textContent = text;
  element.disabled = true;
  element.setAttribute("aria-busy", "true");
  if (error) error.textContent = "";
  try {
    return await action();
  } catch (why) {
    if (error) error.textContent = inWords(why);
    else tell(inWords(why), "bad");
    return undefined;
  } finally {
    if (text) element.textContent = before;
    element.disabled = false;
    element.removeAttribute("aria-busy");
    if (focused && document.activeElement === document.body) element.focus();
  }
}

// At most once in `ms`, and once more after the last call. Who called does not wait: an action shows its
// own errors.
function calmly(ms, action) {
  let isOn = false, again = false;
  const start = async () => {
    if (isOn) { again = true; return; }
    [isOn, again] = [true, false];
    try { await action(); } catch (error) { if (!(error instanceof Refused)) console.error(error); }
    await pause(ms);
    isOn = false;
    if (again) start();
  };
  return start;
}
