// Words and numbers as the page writes them.

const names = { 9: "\\t", 10: "\\n", 13: "\\r", 27: "\\e" };

// visible shows characters that nobody sees, or that change the order of others: names come
// from anybody.
export function visible(s) {
  return String(s).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cs}]/gu, c => {
    const code = c.codePointAt(0);
    return names[code] || (code < 256 ? "\\x" + code.toString(16).padStart(2, "0") : "\\u{" + code.toString(16) + "}");
  });
}

const tenths = n => n.toFixed(1).replace(/\.0$/, "");

// bytes writes a size as udm ls does.
export function bytes(n) {
  const units = ["B", "K", "M", "G", "T", "P", "E"];
  let i = 0;
  for (; i < units.length - 1 && n >= 1024; i++) n /= 1024;
  return tenths(n) + units[i];
}

export const count = n => n >= 1e6 ? `${Math.round(n / 1e5) / 10}M` : n >= 1e4 ? `${Math.round(n / 100) / 10}k` : `${Math.round(n * 10) / 10}`;

// seconds writes a time from microseconds to days.
export function seconds(s) {
  const round = v => v >= 100 ? Math.round(v) : Math.round(v * 10) / 10;
  if (s < 1e-3) return `${round(s * 1e6)} µs`;
  if (s < 1) return `${round(s * 1e3)} ms`;
  if (s < 90) return `${round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return s < 36 * 3600 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} days`;
}

export const percent = share => `${Math.floor(share * 100)}%`;
export const plural = (n, one, many = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
