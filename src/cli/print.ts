/** How results look: aligned tables and short times for people, one line of JSON for programs. */
import { styleText } from "node:util";
import { describeMs } from "../core/duration.ts";

type Style = Parameters<typeof styleText>[0];

/** Colour only where somebody sees it: a terminal, unless NO_COLOR says otherwise. */
export function printsColour(): boolean {
  return process.stdout.isTTY && !process.env["NO_COLOR"];
}

export function paint(style: Style, text: string): string {
  return printsColour() ? styleText(style, text) : text;
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value));
}

/** Columns as wide as their widest cell; numbers to the right, texts to the left, nothing behind the last one. */
export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const isNumber = head.map((_, column) => rows.length > 0 && rows.every((row) => typeof row[column] === "number"));
  const widths = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => String(row[column] ?? "").length)),
  );
  const line = (cells: readonly (string | number)[]): string =>
    cells
      .map((cell, column) => String(cell)[isNumber[column] ? "padStart" : "padEnd"](widths[column] ?? 0))
      .join("  ")
      .trimEnd();
  return [paint("bold", line(head)), ...rows.map(line)].join("\n");
}

/** Names in one column, values in the next. Rows without a value are left out. */
export function facts(rows: readonly (readonly [name: string, value: string | null | undefined])[]): string {
  const told = rows.filter((row): row is [string, string] => typeof row[1] === "string" && row[1] !== "");
  const width = Math.max(...told.map(([name]) => name.length));
  return told
    .map(
      ([name, value]) => `${paint("dim", name.padEnd(width))}  ${value.replaceAll("\n", `\n${" ".repeat(width + 2)}`)}`,
    )
    .join("\n");
}

/** `12 s ago`, `in 4 min`; a dash for what has not happened. */
export function fromNow(time: Date | string | null, nowMs: number): string {
  if (time === null) return "-";
  const ms = new Date(time).getTime() - nowMs;
  return ms > 0 ? `in ${describeMs(ms)}` : `${describeMs(-ms)} ago`;
}

/** Line breaks and control characters would break a table, and more: a terminal obeys them. */
export function oneLine(text: string, longest: number): string {
  const plain = text.replaceAll(/[\p{Cc}\p{Cf}]+/gu, " ").trim();
  return plain.length > longest ? `${plain.slice(0, longest - 1)}…` : plain;
}

/** `1 job`, `2 jobs`. */
export function counted(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? "" : "s"}`;
}
