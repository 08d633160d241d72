/** Reads the text format of Prometheus. */

/** Values by series, `name{label="value",…}`. */
export function samplesOf(text: string): Map<string, number> {
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => {
      const end = line.lastIndexOf(" ");
      return [line.slice(0, end), Number(line.slice(end + 1))];
    }),
  );
}

/** The samples of one metric, by their labels as text. */
export function valuesOf(text: string, name: string): Record<string, number> {
  const own = [...samplesOf(text)].filter(([series]) => series === name || series.startsWith(`${name}{`));
  return Object.fromEntries(own.map(([series, value]) => [series.slice(name.length), value]));
}

/** Types by name of metric. */
export function typesOf(text: string): Map<string, string> {
  return new Map([...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name = "", type = ""]) => [name, type]));
}
