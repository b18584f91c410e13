// The lists beside the image.

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

const percent = (value) => `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`;

export function showBest(list, quality, answer, chosen, onChoose) {
  if (!answer?.id) {
    list.replaceChildren(make("p", "faint", "Point at an object to see its five best names."));
    quality.textContent = "";
    return;
  }
  list.replaceChildren(...answer.names.map(([name, probability], place) => {
    const button = make("button");
    button.type = "button";
    button.title = name;
    button.setAttribute("aria-pressed", String(place === chosen));
    button.append(make("span", "", String(place + 1)), make("span", "", name), make("span", "", percent(probability)));
    const bar = make("i");
    bar.style.width = `${100 * probability}%`;
    button.append(bar);
    button.addEventListener("click", () => onChoose(place));
    return button;
  }));
  quality.textContent = `mask stability ${answer.stability.toFixed(2)}, margin ${answer.margin.toFixed(2)}`;
}

export function showKept(list, kept, imageName, onRemove) {
  list.replaceChildren(...kept.map((one) => {
    const row = make("li");
    const swatch = make("i", "swatch");
    swatch.style.background = `rgb(${one.color.join(" ")})`;
    const name = make("span", "name", one.name);
    if (one.imageName !== imageName) name.append(" ", make("small", "", one.imageName));
    const remove = make("button", "", "×");
    remove.type = "button";
    remove.setAttribute("aria-label", `Remove ${one.name}`);
    remove.addEventListener("click", () => onRemove(one));
    row.append(swatch, name, make("span", "score faint", percent(one.score)), remove);
    return row;
  }));
}

export function showExamples(list, examples, current, onOpen) {
  list.replaceChildren(...examples.map((name) => {
    const button = make("button");
    button.type = "button";
    button.title = name;
    if (name === current) button.setAttribute("aria-current", "true");
    const picture = make("img");
    picture.src = `examples/${encodeURIComponent(name)}`;
    picture.alt = `Example ${name.replace(/\.[a-z]+$/, "").replaceAll("_", " ")}`;
    button.append(picture);
    button.addEventListener("click", () => onOpen(name));
    const item = make("li");
    item.append(button);
    return item;
  }));
}

export function showVocabulary(line, names) {
  const more = names.count > names.first.length ? ", …" : "";
  line.textContent = `${names.count} names: ${names.first.join(", ")}${more}`;
}
