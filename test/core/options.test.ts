import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkedName, didYouMean, refuseUnknown, wholeNumber } from "../../src/core/options.ts";

const known = new Set(["delay", "runAt", "priority", "maxAttempts"]);

describe("an unknown option", () => {
  test.each([
    ["dealy", "delay"],
    ["Delay", "delay"],
    ["run_at", "runAt"],
    ["runat", "runAt"],
    ["prioritty", "priority"],
    ["max_attempts", "maxAttempts"],
    ["maxAttempt", "maxAttempts"],
  ])("%s is refused with the nearest one that exists, %s", (wrong, right) => {
    expect(() => refuseUnknown("enqueue", { [wrong]: 1 }, known)).toThrow(
      expect.objectContaining({
        code: "OPTION_UNKNOWN",
        message: `enqueue: unknown option "${wrong}". Did you mean "${right}"?`,
      }),
    );
  });

  test("that resembles none is refused with the list of those that exist", () => {
    expect(() => refuseUnknown("enqueue", { colour: "red" }, known)).toThrow(
      'enqueue: unknown option "colour". Known: delay, runAt, priority, maxAttempts.',
    );
  });

  test("is refused even when its value is undefined, because a misspelt name is", () => {
    expect(() => refuseUnknown("enqueue", { dealy: undefined }, known)).toThrow(/Did you mean "delay"/);
  });
});

test("known options pass, and so does none at all", () => {
  expect(() => refuseUnknown("enqueue", { delay: 1, priority: 2 }, known)).not.toThrow();
  expect(() => refuseUnknown("enqueue", {}, known)).not.toThrow();
});

describe("did you mean", () => {
  test("names a word from which one letter was lost, doubled, changed or swapped with its neighbour", () => {
    const words = ["concurrency", "unknownTasks", "idempotencyKey", "backoff", "timeout"];
    fc.assert(
      fc.property(
        fc.constantFrom(...words),
        fc.nat(),
        fc.constantFrom("lost", "doubled", "changed", "swapped"),
        (word, at, how) => {
          const i = at % (word.length - 1);
          const [a, b] = [word[i] ?? "", word[i + 1] ?? ""];
          const wrong = { lost: b, doubled: a + a + b, changed: `#${b}`, swapped: b + a }[how];
          const typed = word.slice(0, i) + wrong + word.slice(i + 2);
          expect(didYouMean(typed, words)).toBe(` Did you mean "${word}"?`);
        },
      ),
    );
  });

  test("says nothing when there is nothing, or too much, to choose from", () => {
    expect(didYouMean("delay", [])).toBe("");
    expect(
      didYouMean(
        "delay",
        Array.from({ length: 21 }, (_, i) => `variable_number_${i}`),
      ),
    ).toBe("");
  });
});

describe("a whole number", () => {
  test("within its bounds is returned", () => {
    expect(wholeNumber(-3, "priority", -3, 3)).toBe(-3);
    expect(wholeNumber(3, "priority", -3, 3)).toBe(3);
  });

  test.each([[4], [-4], [1.5], [Number.NaN], [Number.POSITIVE_INFINITY], ["1"], [null], [undefined], [1n], [{}]])(
    "is not %s",
    (given) => {
      expect(() => wholeNumber(given, "priority", -3, 3)).toThrow(
        expect.objectContaining({
          code: "OPTION_INVALID",
          message: expect.stringMatching(/^priority must be a whole number from -3 to 3, not /),
        }),
      );
    },
  );

  test("that is not one is shown in at most 80 characters, whatever it is", () => {
    const cyclic: Record<string, unknown> = {};
    cyclic["self"] = cyclic;
    for (const given of ["x".repeat(5_000), cyclic, Symbol("s"), () => 1])
      expect(() => wholeNumber(given, "n", 0, 1)).toThrow(
        expect.objectContaining({
          message: expect.stringMatching(/^n must be a whole number from 0 to 1, not .{1,80}\.$/s),
        }),
      );
  });
});

describe("a name", () => {
  test.each(["a", "0", "default", "ai-analysis", "mail.send:v2", "A_b", "x".repeat(128)])("may be %j", (name) => {
    expect(checkedName(name, "queue")).toBe(name);
  });

  test.each([
    "",
    "-a",
    ".a",
    ":a",
    "_a",
    "a b",
    "a/b",
    "é",
    "a\n",
    "\na",
    "a\0",
    "x".repeat(129),
    "'; drop",
    "a%",
    7,
    null,
  ])("may not be %j", (name) => {
    expect(() => checkedName(name, "queue")).toThrow(expect.objectContaining({ code: "QUEUE_NAME_INVALID" }));
    expect(() => checkedName(name, "task")).toThrow(expect.objectContaining({ code: "TASK_NAME_INVALID" }));
  });
});
