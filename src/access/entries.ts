/** Lists in variables: separated by commas, or a JSON array of texts. */

/** Undefined for what begins like a JSON array of texts and is none. */
export function readEntries(text: string): string[] | undefined {
  const trimmed = text.trim();
  if (!trimmed.startsWith("[")) return trimmed.split(",").map((entry) => entry.trim());
  try {
    const entries = JSON.parse(trimmed) as unknown;
    return Array.isArray(entries) && entries.every((entry) => typeof entry === "string") ? entries : undefined;
  } catch {
    return undefined; // said by who asked: the variable is not allowed
  }
}
