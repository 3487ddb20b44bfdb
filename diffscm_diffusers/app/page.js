// The picture input: drawing, file and examples. Listeners are the document's, as Gradio may build the page anew.
(() => {
  const PEN = 22;
  const pens = new WeakMap(); // canvas -> where its pen is, and whether it is down

  const penOf = (canvas) => {
    if (!pens.has(canvas)) pens.set(canvas, { x: 140, y: 140, down: false });
    return pens.get(canvas);
  };

  const stroke = (canvas, fromX, fromY, toX, toY) => {
    const context = canvas.getContext("2d");
    context.lineWidth = PEN;
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = "#fff";
    context.beginPath();
    context.moveTo(fromX, fromY);
    context.lineTo(toX, toY);
    context.stroke();
  };

  const place = (canvas, event) => {
    const box = canvas.getBoundingClientRect();
    const scale = canvas.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };

  const clear = (canvas) => {
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    pens.delete(canvas); // back to the middle, and up
  };
  const canvasOf = (event) => event.target.closest?.(".diffscm-picture canvas");

  document.addEventListener("pointerdown", (event) => {
    const canvas = canvasOf(event);
    if (!canvas) return;
    canvas.setPointerCapture(event.pointerId);
    const [x, y] = place(canvas, event);
    Object.assign(penOf(canvas), { x, y });
    stroke(canvas, x, y, x, y);
  });

  document.addEventListener("pointermove", (event) => {
    const canvas = canvasOf(event);
    if (!canvas || !event.buttons) return;
    const pen = penOf(canvas);
    const [x, y] = place(canvas, event);
    stroke(canvas, pen.x, pen.y, x, y);
    Object.assign(pen, { x, y });
  });

  document.addEventListener("keydown", (event) => {
    const canvas = canvasOf(event);
    if (!canvas) return;
    const pen = penOf(canvas);
    const move = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] }[event.key];
    if (move) {
      const x = Math.min(Math.max(pen.x + move[0], 0), canvas.width);
      const y = Math.min(Math.max(pen.y + move[1], 0), canvas.height);
      if (pen.down) stroke(canvas, pen.x, pen.y, x, y);
      Object.assign(pen, { x, y });
    } else if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) stroke(canvas, pen.x, pen.y, pen.x, pen.y);
    } else if (event.key === "Delete") {
      clear(canvas);
    } else return;
    event.preventDefault();
    const { x, y, down } = penOf(canvas);
    const status = canvas.closest(".diffscm-panel").querySelector(".diffscm-pen");
    status.textContent = `Pen ${down ? "down" : "up"} at ${Math.round(x)}, ${Math.round(y)} of 280.`;
  });

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".diffscm-clear");
    if (button) clear(button.closest(".diffscm-panel").querySelector("canvas"));
  });

  document.addEventListener("change", (event) => {
    const input = event.target;
    const panel = input.closest?.('.diffscm-panel[data-kind="upload"]');
    if (!panel || input.type !== "file") return;
    const preview = panel.querySelector(".diffscm-preview");
    panel.dataset.picture = "";
    preview.hidden = true;
    const file = input.files[0];
    if (!file) return;
    if (file.size > Number(panel.closest(".diffscm-picture").dataset.maxBytes)) {
      panel.dataset.picture = `too large:${file.size}`;
      return;
    }
    const reader = new FileReader();
    reader.onload = () => {
      panel.dataset.picture = preview.src = reader.result;
      preview.hidden = false;
    };
    reader.readAsDataURL(file);
  });

  window.diffscmPicture = (id) => {
    const input = document.getElementById(id);
    const kind = input.querySelector('input[name$="-kind"]:checked').value;
    if (kind === "draw") return input.querySelector("canvas").toDataURL("image/png");
    if (kind === "upload") return input.querySelector('[data-kind="upload"]').dataset.picture || "";
    return `example:${input.querySelector('input[name$="-example"]:checked').value}`;
  };
})();
