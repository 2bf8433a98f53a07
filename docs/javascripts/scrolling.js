// What scrolls sideways is reached by the keyboard, too: the theme sees to code alone, and not on touch screens.
window.addEventListener("load", () => {
  const sizes = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (target.scrollWidth > target.clientWidth) target.setAttribute("tabindex", "0");
      else target.removeAttribute("tabindex");
    }
  });
  document.querySelectorAll("pre > code, .md-typeset__scrollwrap, .equation").forEach((each) => sizes.observe(each));
});
