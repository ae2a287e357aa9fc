
// -- What a program wrote: colours are shown, all other control sequences dropped, and the text is bounded.
const SEQUENCE = /\u001b(?:\[([0-?]*)[ -/]*([@-~]?)|[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[ -/]*[0-~])|[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

// One line as [class, text] pieces. `look` is what the sequences before have set, and is changed.
function pieces(line, look) {
  // What a progress bar wrote over is gone, as in a terminal.
  const end = line.endsWith("\r") ? line.slice(0, -1) : line;
  const rest = end.slice(end.lastIndexOf("\r") + 1);
  const found = [];
  let from = 0;
  const take = (to) => { if (to > from) found.push([classes(look), rest.slice(from, to)]); };
  for (const match of rest.matchAll(SEQUENCE)) {
    take(match.index);
    from = match.index + match[0].length;
    if (match[2] === "m") restyle(look, match[1]);
  }
  take(rest.length);
  return found;
}
function restyle(look, parameters) {
  const codes = parameters.split(/[;:]/).map(Number);
  for (let i = 0; i < codes.length; i += 1) {
    const code = codes[i];
    if (code === 0) for (const key of Object.keys(look)) delete look[key];
    else if (code === 1) look.bold = true;
    else if (code === 2) look.dim = true;
    else if (code === 3) look.italic = true;
    else if (code === 4) look.lined = true;
    else if (code === 22) { delete look.bold; delete look.dim; }
    else if (code === 23) delete look.italic;
    else if (code === 24) delete look.lined;
    else if (code >= 30 && code <= 37) look.colour = code - 30;
    else if (code >= 90 && code <= 97) look.colour = code - 90;
    else if (code === 39) delete look.colour;
    else if (code === 38 || code === 48) {
      // The sixteen first of 256 colours have names; others are not told apart here.
      if (code === 38) { if (codes[i + 1] === 5 && codes[i + 2] < 16) look.colour = codes[i + 2] % 8; else delete look.colour; }
      i += codes[i + 1] === 5 ? 2 : 4;
    }
  }
}
const classes = (look) => Object.entries(look).map(([key, value]) => value === true ? key : `c${value}`).join(" ");
function painted(line, look) {
  return pieces(line, look).map(([name, text]) => name ? make("span", { class: name, text: seen(text) }) : seen(text));
}

// Keeps a scrolled box at its end until somebody scrolls up.
class Sticky {
  constructor(box, onmove) {
    this.box = box;
    this.atEnd = true;
    box.addEventListener("scroll", () => {
      this.atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
      onmove?.(this.atEnd);
    }, { passive: true });
  }
  settle() { if (this.atEnd) this.box.scrollTop = this.box.scrollHeight; }
}

// A box with output that grows. The oldest goes when there is more than this.
const OUTPUT = { pieces: 2000, chars: 1_000_000 };
class Output {
  constructor(label) {
    this.box = make("div", { class: "terminal output mono", tabindex: "0", role: "log", "aria-live": "off", "aria-label": label });
    this.sticky = new Sticky(this.box);
    this.looks = { out: {}, err: {} };
    this.chars = 0;
    this.later = [];
  }
  // A text of one of the streams; it may hold line ends, and need not end with one.
  write(kind, text) {
    const span = make("span", { class: kind });
    let plain = "";
    text.split("\n").forEach((line, n) => {
      if (n > 0) plain += "\n";
      for (const piece of painted(line, this.looks[kind] || {})) {
        if (typeof piece === "string") { plain += piece; continue; }
        span.append(plain, piece);
        plain = "";
      }
    });
    span.append(plain);
    this.put(span, text.length);
  }
  // A line of our own.
  note(text) { this.put(make("span", { class: "said", text: `${seen(text)}\n` }), text.length); }
  element(element, chars) { this.put(element, chars); }
  put(element, chars) {
    element.chars = chars;
    this.later.push(element);
    if (this.later.length > OUTPUT.pieces) this.later.splice(0, this.later.length - OUTPUT.pieces);
    if (!this.waiting) { this.waiting = true; setTimeout(() => this.flush(), 30); }
  }
  flush() {
    this.waiting = false;
    for (const element of this.later) this.chars += element.chars;
    this.box.append(...this.later);
    this.later = [];
    while (this.box.childElementCount > OUTPUT.pieces || (this.chars > OUTPUT.chars && this.box.childElementCount > 1)) {
      this.chars -= this.box.firstElementChild.chars || 0;
      this.box.firstElementChild.remove();
    }
    this.sticky.settle();
  }
}
