/** What may be shown of a value that can hold a secret. */

/** A URL without its password; `***` for what cannot be read as one. */
export function withoutPassword(text: string): string {
  if (!URL.canParse(text)) return "***";
  const url = new URL(text);
  if (url.password !== "") url.password = "***";
  // libpq takes it there too.
  if (url.searchParams.has("password")) url.searchParams.set("password", "***");
  return url.href;
}
