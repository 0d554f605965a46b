const WAIT = 350;

function draw(root, problems) {
  const area = root.querySelector("textarea");
  const byLine = new Map();
  for (const each of problems) {
    if (!byLine.has(each.line)) byLine.set(each.line, each.text);
  }
  const lines = area.value.split("\n");
  const numbers = root.querySelector(".lines");
  const overlay = root.querySelector(".overlay");
  numbers.replaceChildren();
  overlay.replaceChildren();
  lines.forEach((line, index) => {
    const wrong = byLine.get(index + 1);
    const number = document.createElement(wrong ? "b" : "span");
    number.textContent = `${index + 1}\n`;
    numbers.append(number);
    const row = document.createElement("div");
    row.textContent = line;
    if (wrong) {
      row.className = "bad";
      const words = document.createElement("span");
      words.textContent = `✕ ${wrong}`;
      row.append(words);
    }
    overlay.append(row);
  });
  follow(root);
}

function follow(root) {
  const area = root.querySelector("textarea");
  root.querySelector(".lines").scrollTop = area.scrollTop;
  root.querySelector(".overlay").style.transform = `translate(${-area.scrollLeft}px, ${-area.scrollTop}px)`;
}

export default function ({ data, parentElement, setStateValue }) {
  const root = parentElement;
  const area = root.querySelector("textarea");
  const state = (root.unheard ??= { problems: [], timer: 0, begun: false });
  state.send = setStateValue;
  if (!state.begun) {
    state.begun = true;
    area.value = data.text;
    area.addEventListener("input", () => {
      draw(root, state.problems);
      clearTimeout(state.timer);
      state.timer = setTimeout(() => state.send("text", area.value), WAIT);
    });
    area.addEventListener("scroll", () => follow(root));
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") area.blur();
    });
  }
  area.readOnly = data.locked;
  area.setAttribute("aria-label", data.label);
  area.setAttribute("aria-invalid", data.problems.length > 0);
  state.problems = data.problems;
  draw(root, state.problems);
}
