import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Duration, describeMs, durationMs } from "../../src/core/duration.ts";

const tenYears = 3650 * 86_400_000;

describe("a duration", () => {
  test.each<[Duration, number]>([
    ["0ms", 0],
    ["250ms", 250],
    ["30s", 30_000],
    ["1.5s", 1_500],
    ["5m", 300_000],
    ["2h", 7_200_000],
    ["1d", 86_400_000],
    ["3650d", tenYears],
    [0, 0],
    [0.5, 0.5],
    [tenYears, tenYears],
  ])("%j is %d ms", (given, ms) => {
    expect(durationMs(given, "delay")).toBe(ms);
  });

  test.each([
    "30",
    "s",
    "-1s",
    "1e3s",
    "1 s",
    "1S",
    "1w",
    "one second",
    "",
    "3651d",
    tenYears + 1,
    -1,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    null,
    undefined,
    {},
    [1],
    10n,
    Symbol("s"),
  ])("%o is refused as OPTION_INVALID, and the message says which option it was", (given) => {
    expect(() => durationMs(given as Duration, "delay")).toThrow(
      expect.objectContaining({ code: "OPTION_INVALID", message: expect.stringMatching(/^delay must be a duration/) }),
    );
  });

  test("written with a unit means as many milliseconds as that unit has", () => {
    const units = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
    fc.assert(
      fc.property(fc.nat(3_650), fc.constantFrom(...(Object.keys(units) as (keyof typeof units)[])), (n, unit) => {
        expect(durationMs(`${n}${unit}`, "delay")).toBe(n * units[unit]);
      }),
    );
  });
});

test.each([
  [0, "0 ms"],
  [839.6, "840 ms"],
  [999, "999 ms"],
  [1_000, "1 s"],
  [119_000, "119 s"],
  [120_000, "2 min"],
  [7_199_000, "120 min"],
  [7_200_000, "2 h"],
  [86_400_000, "24 h"],
  [172_800_000, "2 d"],
])("%d ms is told to people as %s", (ms, words) => {
  expect(describeMs(ms)).toBe(words);
});
