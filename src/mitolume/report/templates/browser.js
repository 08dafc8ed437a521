// The image browser: one image, one arm, and a slider from the image over truth and prediction
// to the errors. Colours come from the page's swatches, so that key and picture agree.
(() => {
  const data = JSON.parse(document.getElementById("browser-data").textContent);
  const $ = (name) => document.getElementById(`browser-${name}`);
  const [canvas, image, arm, stage, scores, said] =
    ["canvas", "image", "arm", "stage", "scores", "said"].map($);
  if (!canvas) return;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const colour = Object.fromEntries([...document.querySelectorAll("#browser [data-colour]")].map(
    (swatch) => [swatch.dataset.colour, swatch.dataset.rgb.split(",").map(Number)]));
  const STAGES = ["image", "truth", "prediction", "errors"];
  let layers = null;  // pictures of the stages for the image and arm that are shown
  let asked = 0;

  const pixels = async (uri, width, height) => {
    const picture = new Image();
    picture.src = uri;
    await picture.decode();
    const own = new OffscreenCanvas(width, height).getContext("2d");
    own.drawImage(picture, 0, 0, width, height);
    return own.getImageData(0, 0, width, height);
  };

  // Mask pixels: 0 background, 255 mitochondria, 128 unsure.
  const painted = (grey, paint) => {
    const result = new ImageData(new Uint8ClampedArray(grey.data), grey.width, grey.height);
    for (let i = 0; i < result.data.length; i += 4) {
      const tint = paint(i);
      if (tint) for (let c = 0; c < 3; c++) result.data[i + c] = 0.45 * grey.data[i + c] + 0.55 * tint[c];
    }
    return result;
  };

  const draw = () => {
    if (!layers) return;
    const at = Number(stage.value);
    const below = layers[Math.floor(at)];
    const above = layers[Math.ceil(at)];
    const share = at - Math.floor(at);
    const mixed = new ImageData(below.width, below.height);
    for (let i = 0; i < mixed.data.length; i++) {
      mixed.data[i] = (1 - share) * below.data[i] + share * above.data[i];
    }
    context.putImageData(mixed, 0, 0);
    const shown = STAGES[Math.round(at)];
    stage.setAttribute("aria-valuetext", shown);
    document.querySelectorAll("#browser-stages button").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.stage === shown));
    });
    canvas.dataset.stage = shown;
  };

  const number = (value) => (value === null ? "undefined" : value.toFixed(3));

  const tell = (entry) => {
    const place = [entry.specimen && `specimen ${entry.specimen}`, entry.condition].filter(Boolean);
    said.textContent = `\u2068${entry.name.replace(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd")}\u2069${place.length ? ` (${place.join(", ")})` : ""}`;
    scores.replaceChildren(...data.arms.filter((name) => name in entry.scores).map((name) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      const choose = document.createElement("button");
      choose.type = "button";
      choose.textContent = name;
      choose.setAttribute("aria-pressed", String(name === arm.value));
      choose.addEventListener("click", () => {
        arm.value = name;
        show();
        scores.querySelector('[aria-pressed="true"]')?.focus();
      });
      head.append(choose);
      row.append(head);
      for (const score of ["iou", "precision", "recall"]) {
        const cell = document.createElement("td");
        cell.textContent = number(entry.scores[name][score]);
        row.append(cell);
      }
      row.className = name === arm.value ? "chosen" : "";
      return row;
    }));
  };

  const show = async () => {
    const turn = ++asked;
    const entry = data.images[Number(image.value)];
    tell(entry);
    const uris = [entry.image, entry.truth, entry.masks[arm.value] ?? entry.truth];
    const [grey, truth, found] =
      await Promise.all(uris.map((uri) => pixels(uri, entry.width, entry.height)));
    if (turn !== asked) return;  // another image was asked for in the meantime
    const yes = (mask, i) => mask.data[i] === 255;
    const unsure = (i) => (truth.data[i] === 128 ? colour.unsure : null);
    layers = [
      grey,
      painted(grey, (i) => (yes(truth, i) ? colour.found : unsure(i))),
      painted(grey, (i) => (yes(found, i) ? colour.found : null)),
      painted(grey, (i) => unsure(i) ?? (yes(truth, i)
        ? (yes(found, i) ? colour.found : colour.missed)
        : (yes(found, i) ? colour.false : null))),
    ];
    canvas.width = entry.width;
    canvas.height = entry.height;
    canvas.setAttribute("aria-label", `${entry.name}, ${arm.value}`);
    draw();
    canvas.dataset.shown = `${image.value} ${arm.value}`;
  };

  const step = (by) => {
    image.value = String((Number(image.value) + by + data.images.length) % data.images.length);
    show();
  };

  image.addEventListener("change", show);
  arm.addEventListener("change", show);
  stage.addEventListener("input", draw);
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  document.querySelectorAll("#browser-stages button").forEach((button) => {
    button.addEventListener("click", () => {
      stage.value = String(STAGES.indexOf(button.dataset.stage));
      draw();
    });
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") step(1);
    else if (event.key === "ArrowLeft") step(-1);
    else return;
    event.preventDefault();
  });
  show();
})();
