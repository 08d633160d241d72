/** Of an even number of values the worse of the two in the middle: the lower, or for what should be small the higher. */
export function median(values, lowerIsBetter = false) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  return sorted[lowerIsBetter ? Math.ceil(middle) : Math.floor(middle)];
}

export const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Nearest-rank percentile. */
export function percentile(values, p) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil((p / 100) * sorted.length) - 1)];
}

/** 12345.6 → "12,346", 3.14159 → "3.14", 0.0123 → "0.012". */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (typeof value !== "number") return String(value);
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString("en-US");
  if (size >= 10) return value.toFixed(1);
  return size >= 0.1 || size === 0 ? value.toFixed(2) : value.toFixed(3);
}

/** "median (min–max)", or the single value. */
export function spread(values, lowerIsBetter = false) {
  const known = values.filter((value) => typeof value === "number" && !Number.isNaN(value));
  if (known.length === 0) return "–";
  if (known.length === 1) return short(known[0]);
  return `${short(median(known, lowerIsBetter))} (${short(Math.min(...known))}–${short(Math.max(...known))})`;
}
