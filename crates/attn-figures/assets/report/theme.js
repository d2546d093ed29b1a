// A theme that was chosen before. Storage may be refused, for a file on disk too: then the system's theme holds.
try {
  const theme = localStorage.getItem("attn-bench-theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch (error) { /* no storage */ }
