// Runs before anything is drawn, so that a chosen theme does not flash in the other one first.
"use strict";
try {
  const theme = JSON.parse(localStorage.getItem("hearth.theme"));
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Without storage the system's theme is right.
}
