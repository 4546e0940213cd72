// Keys of the tab Judge: they press its buttons, but not while a text is typed.
(() => {
  const keys = {
    ArrowLeft: "left", a: "left", ArrowRight: "right", d: "right",
    ArrowUp: "tie", w: "tie", ArrowDown: "bad", s: "bad",
  };
  const typing = (element) =>
    element.closest("input, textarea, select, [contenteditable=true], [role=listbox], [role=tab]");
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof Element && typing(event.target)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const choice = /^[0-4]$/.test(key) ? key : keys[key];
    const button = choice && document.getElementById(`vote-${choice}`);
    if (!button || button.offsetParent === null) return;  // another tab, or another kind of vote
    event.preventDefault();
    button.click();
  });
})();
