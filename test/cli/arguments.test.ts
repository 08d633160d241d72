import { commands } from "../../src/cli/commands.ts";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { ArgsDef } from "citty";
import { describe, expect, test } from "vitest";
import { checkArguments, durationOption, instantOption, wholeOption, wordOption } from "../../src/cli/arguments.ts";

const known: ArgsDef = {
  task: { type: "positional", required: true },
  input: { type: "positional", required: false },
  queue: { type: "string" },
  json: { type: "boolean" },
};

describe("arguments", () => {
  test.for([
    [["hello"]],
    [["hello", "{}", "--queue", "mail", "--json"]],
    [["--queue=mail", "hello", "-"]],
    [["hello", "--queue", "-5"]],
    [["hello", "--no-json"]],
    [["hello", "--queue=--odd"]],
  ])("%j are fine", ([given = []]) => {
    expect(() => checkArguments("millrace x", given, known)).not.toThrow();
  });

  test.for<[string[], string]>([
    [[], "<task> is missing"],
    [["hello", "{}", "more"], '"more" is one argument too many'],
    [["hello", "--queue"], "--queue needs a value"],
    [["hello", "--queue", "--json"], "--queue needs a value"],
    [["hello", "--json=yes"], "--json takes no value"],
    [["hello", "--qeue", "mail"], 'unknown option "--qeue". Did you mean "--queue"?'],
    [["hello", "--no-queue"], 'unknown option "--no-queue"'],
    [["hello", "-q", "mail"], 'unknown option "-q"'],
    [["hello", "--", "x"], 'unknown option "--"'],
  ])("%j are refused: %s", ([given, reason]) => {
    expect(() => checkArguments("millrace x", given, known)).toThrow(reason);
  });

  test("numbers, durations, times and words are read, and anything else is refused", () => {
    expect(wholeOption("-5", "priority")).toBe(-5);
    expect(wholeOption(undefined, "priority")).toBeUndefined();
    expect(() => wholeOption("many", "limit")).toThrow('--limit must be a whole number, not "many".');
    expect(durationOption("1.5h", "delay")).toBe(5_400_000);
    expect(() => durationOption("soon", "delay")).toThrow('--delay must be a duration such as "30s"');
    expect(instantOption("2099-01-31T08:00")).toBe(new Date(2099, 0, 31, 8).toISOString());
    expect(() => instantOption("soon")).toThrow("--run-at must be a Date or an ISO 8601 time");
    expect(wordOption("on", "switch", ["on", "off"])).toBe("on");
    expect(() => wordOption("onn", "switch", ["on", "off"])).toThrow('Did you mean "on"?');
  });
});

const page = readFileSync(resolve(import.meta.dirname, "../../docs/reference/cli.md"), "utf8");

/** Their options are described where they are; other commands share tables. */
const described =
  "up worker enqueue flow batch emit wait result steps dependencies jobs job queues retry change remove status health metrics sessions whoami api migrate doctor config";

test.for(described.split(" "))("docs/reference/cli.md describes the options of %s, and no others", async (name) => {
  const command = await commands[name]?.();
  const [, section = ""] = page.split(new RegExp(`^## \`millrace ${name}\`$`, "m"));
  const table = section.split(/^## /m)[0] ?? "";
  const cells = [...table.matchAll(/^\| (`--[^|]*)\|/gm)].map(([, cell = ""]) => cell);
  const told = cells.flatMap((cell) => [...cell.matchAll(/`--([a-z-]+)/g)].map(([, option]) => option));
  const options = Object.entries(command?.args as ArgsDef)
    .filter(([option, { type }]) => type !== "positional" && option !== "json")
    .map(([option]) => option);
  expect(new Set(told)).toEqual(new Set(options));
});
