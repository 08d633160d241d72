import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { MillraceError, NonRetryableError, RateLimitError, errorCodes } from "../../src/core/errors.ts";
import { type Backoff, backoffRule, defaultBackoff, readFailure, retryDelayMs } from "../../src/core/retry.ts";

const rules = fc.record({
  type: fc.constantFrom("exponential" as const, "fixed" as const),
  delayMs: fc.nat(86_400_000),
  maxMs: fc.nat(86_400_000),
  jitter: fc.double({ min: 0, max: 1, noNaN: true }),
});
const attempts = fc.integer({ min: 1, max: 32_767 });
const chances = fc.double({ min: 0, max: 1, noNaN: true });

describe("the delay before a retry", () => {
  test("is a whole number from 0 to the maximum, whatever rule, attempt and chance", () => {
    fc.assert(
      fc.property(rules, attempts, chances, (rule, attempt, chance) => {
        const ms = retryDelayMs(rule, attempt, chance);
        expect(Number.isInteger(ms)).toBe(true);
        expect(ms).toBeGreaterThanOrEqual(0);
        expect(ms).toBeLessThanOrEqual(rule.maxMs);
      }),
    );
  });

  test("without jitter never shrinks from one attempt to the next, and does not depend on chance", () => {
    fc.assert(
      fc.property(rules, attempts, chances, (rule, attempt, chance) => {
        const still = { ...rule, jitter: 0 };
        const ms = retryDelayMs(still, attempt, chance);
        expect(retryDelayMs(still, attempt, 0.5)).toBe(ms);
        expect(retryDelayMs(still, Math.min(attempt + 1, 32_767), 0.5)).toBeGreaterThanOrEqual(ms);
      }),
    );
  });

  test("varies by no more than its share of jitter either way", () => {
    fc.assert(
      fc.property(rules, attempts, chances, (rule, attempt, chance) => {
        const plain = retryDelayMs({ ...rule, jitter: 0 }, attempt, chance);
        const ms = retryDelayMs(rule, attempt, chance);
        expect(ms).toBeGreaterThanOrEqual(Math.floor(plain * (1 - rule.jitter)) - 1);
        expect(ms).toBeLessThanOrEqual(Math.min(Math.ceil(plain * (1 + rule.jitter)) + 1, rule.maxMs));
      }),
    );
  });

  test("doubles from 2 s up to 15 minutes unless the task says otherwise", () => {
    const delays = [1, 2, 3, 4, 9, 10, 25].map((attempt) => retryDelayMs(defaultBackoff, attempt, 0.5));
    expect(delays).toEqual([2_000, 4_000, 8_000, 16_000, 512_000, 900_000, 900_000]);
  });

  test("varies by a fifth either way unless the task says otherwise", () => {
    expect([0, 0.5, 1].map((chance) => retryDelayMs(defaultBackoff, 1, chance))).toEqual([1_600, 2_000, 2_400]);
  });

  test("that the task asks for is not cut to a maximum it did not ask for", () => {
    expect(backoffRule({ delay: "1h" })).toMatchObject({ delayMs: 3_600_000, maxMs: 3_600_000 });
    expect(backoffRule({ delay: "1h", max: "5m" })).toMatchObject({ delayMs: 3_600_000, maxMs: 300_000 });
    expect(backoffRule({ delay: "1m" })).toMatchObject({ delayMs: 60_000, maxMs: 900_000 });
  });

  test("stays the same when the backoff is fixed", () => {
    const rule = backoffRule({ type: "fixed", delay: "3s", jitter: 0 });
    expect([1, 2, 30].map((attempt) => retryDelayMs(rule, attempt, 0.5))).toEqual([3_000, 3_000, 3_000]);
  });
});

describe("a backoff", () => {
  test("that says nothing is the default one", () => {
    expect(backoffRule(undefined)).toEqual(defaultBackoff);
    expect(backoffRule({})).toEqual(defaultBackoff);
  });

  test.each<[unknown, string]>([
    [{ type: "linear" }, "OPTION_INVALID"],
    [{ delay: "soon" }, "OPTION_INVALID"],
    [{ delay: -1 }, "OPTION_INVALID"],
    [{ max: "99999d" }, "OPTION_INVALID"],
    [{ jitter: 1.1 }, "OPTION_INVALID"],
    [{ jitter: -0.1 }, "OPTION_INVALID"],
    [{ jitter: Number.NaN }, "OPTION_INVALID"],
    [{ jitter: "0.5" }, "OPTION_INVALID"],
    [{ jiter: 0 }, "OPTION_UNKNOWN"],
    ["2s", "OPTION_INVALID"],
    [null, "OPTION_INVALID"],
  ])("%j is refused as %s", (given, code) => {
    expect(() => backoffRule(given as Backoff)).toThrow(expect.objectContaining({ code }));
  });
});

describe("a failure", () => {
  const coded = (code: unknown, rest: object = {}): Error => Object.assign(new Error("boom"), { code }, rest);

  test.each<[string, unknown, string, boolean]>([
    ["a plain error", new Error("boom"), "UNKNOWN", true],
    ["a deadlock of PostgreSQL", coded("40P01"), "DB_DEADLOCK", true],
    ["a serialisation failure of PostgreSQL", coded("40001"), "SERIALIZATION", true],
    ["another SQLSTATE", coded("23505"), "UNKNOWN", true],
    ["a refused connection", coded("ECONNREFUSED"), "DEPENDENCY_DOWN", true],
    ["a connection cut", coded("ECONNRESET"), "DEPENDENCY_DOWN", true],
    ["a name that is not found", coded("ENOTFOUND"), "DEPENDENCY_DOWN", true],
    [
      "fetch() hiding a refused connection in its cause",
      new TypeError("fetch failed", { cause: coded("ECONNREFUSED") }),
      "DEPENDENCY_DOWN",
      true,
    ],
    ["fetch() with another cause", new TypeError("fetch failed", { cause: coded("SELF_SIGNED") }), "UNKNOWN", true],
    ["status 429", Object.assign(new Error("slow down"), { status: 429 }), "RATE_LIMIT", true],
    ["status 500", Object.assign(new Error("oops"), { status: 500 }), "UNKNOWN", true],
    ["AbortSignal.timeout()", new DOMException("The operation timed out", "TimeoutError"), "TIMEOUT", true],
    ["a code of the task's own", coded("MY_OWN_CODE"), "MY_OWN_CODE", true],
    ["a code that is no code", coded("my own"), "UNKNOWN", true],
    ["a code longer than 64 characters", coded(`A${"B".repeat(64)}`), "UNKNOWN", true],
    ["a number as code", coded(42), "UNKNOWN", true],
    ["a code named like something every object has", coded("constructor"), "UNKNOWN", true],
    ["NonRetryableError", new NonRetryableError("never"), "NON_RETRYABLE", false],
    ["NonRetryableError with a code", new NonRetryableError("never", { code: "GONE" }), "GONE", false],
    [
      "NonRetryableError with a code that is no code",
      new NonRetryableError("never", { code: "gone" }),
      "NON_RETRYABLE",
      false,
    ],
    [
      "NonRetryableError with a code that would be tried again",
      new NonRetryableError("no", { code: "TIMEOUT" }),
      "TIMEOUT",
      false,
    ],
    ["RateLimitError", new RateLimitError("later", { retryAfterMs: 500 }), "RATE_LIMIT", true],
    ["BAD_PAYLOAD", new MillraceError("BAD_PAYLOAD", "no"), "BAD_PAYLOAD", false],
    ["UNKNOWN_JOB_TYPE", new MillraceError("UNKNOWN_JOB_TYPE", "no"), "UNKNOWN_JOB_TYPE", false],
    ["POISON, thrown by the task itself", coded("POISON"), "POISON", false],
    ["JOB_STATE", new MillraceError("JOB_STATE", "gone"), "JOB_STATE", true],
    ["a string", "just text", "UNKNOWN", true],
    ["null", null, "UNKNOWN", true],
    ["undefined", undefined, "UNKNOWN", true],
    ["a number", 7, "UNKNOWN", true],
    ["a plain object", { code: "TIMEOUT" }, "UNKNOWN", true],
  ])("%# %s", (_, thrown, code, retryable) => {
    expect(readFailure(thrown)).toMatchObject({ code, retryable });
  });

  test.each([
    ["just text", "just text"],
    [null, "The task threw null."],
    [undefined, "The task threw undefined."],
    [{ a: 1 }, 'The task threw {"a":1}.'],
    [1n, "The task threw [object BigInt]."],
    [new TypeError(""), "TypeError"],
  ])("says what was thrown: %o", (thrown, message) => {
    expect(readFailure(thrown).message).toBe(message);
  });

  test("of every code says whether to try again as the table of codes does", () => {
    for (const [code, facts] of Object.entries(errorCodes)) {
      const { retryable } = readFailure(Object.assign(new Error("x"), { code }));
      expect([code, retryable]).toEqual([code, "retryable" in facts ? facts.retryable : true]);
    }
  });

  test("keeps what the other side asked for, within what a timestamp can hold", () => {
    const asked = (retryAfterMs: number): number => readFailure(new RateLimitError("x", { retryAfterMs })).retryAfterMs;
    expect([1_500, 0, -5].map(asked)).toEqual([1_500, 0, 0]);
    const tenYears = 3650 * 86_400_000;
    expect([Number.POSITIVE_INFINITY, 1e20, Number.MAX_VALUE].map(asked)).toEqual([tenYears, tenYears, tenYears]);
    expect(asked(Number.NaN)).toBe(0);
    expect(asked("90" as unknown as number)).toBe(90);
    expect(asked(undefined as unknown as number)).toBe(0);
  });

  test("with a message beyond 8 192 characters is cut there, and so is its stack", () => {
    const { message, stack } = readFailure(new Error("x".repeat(100_000)));
    expect(message).toBe(`${"x".repeat(8_192)} …`);
    expect(stack).toHaveLength(8_194);
  });

  test("loses its NULs, and its half surrogate pairs become replacement characters", () => {
    expect(readFailure(new Error("a\0b\ud83dc🐎")).message).toBe("ab\ufffdc🐎");
    expect(readFailure(new Error(`${"x".repeat(8_191)}🐎`)).message).toBe(`${"x".repeat(8_191)}\ufffd …`);
  });

  test("is read from errors that carry something else than text where text belongs", () => {
    const oddMessage = Object.assign(new Error("x"), { message: { reason: "object" } });
    const oddStack = Object.assign(new Error("boom"), { stack: [{ getFileName: () => "x" }] });
    const noStack = Object.assign(new Error("boom"), { stack: undefined });
    const trap = new Error("x");
    Object.defineProperty(trap, "message", {
      get: () => {
        throw new Error("no message for you");
      },
    });
    const proxy = new Proxy(new Error("x"), {
      get: () => {
        throw new Error("nothing for you");
      },
    });
    expect(typeof readFailure(oddMessage).message).toBe("string");
    expect(readFailure(oddStack).message).toBe("boom");
    expect(readFailure(noStack).stack).toBeNull();
    for (const thrown of [oddMessage, oddStack, trap, proxy])
      expect(readFailure(thrown)).toMatchObject({ code: "UNKNOWN", retryable: true });
  });

  test("can be read from anything that can be thrown, and fits PostgreSQL", () => {
    const odd = fc.record(
      {
        message: fc.anything(),
        stack: fc.anything(),
        code: fc.anything(),
        status: fc.anything(),
        cause: fc.anything(),
        name: fc.anything(),
      },
      { requiredKeys: [] },
    );
    const thrown = fc.oneof(
      fc.anything({ withBigInt: true, withNullPrototype: true, withObjectString: true }),
      odd.map((facts) => Object.assign(new Error("x"), facts)),
      fc.string({ unit: "binary" }).map((message) => new Error(message)),
    );
    fc.assert(
      fc.property(thrown, (value) => {
        const { code, message, stack, retryAfterMs } = readFailure(value);
        expect(code).toMatch(/^[A-Z][A-Z0-9_]{1,63}$/);
        expect(message.length).toBeLessThanOrEqual(8_194);
        expect(`${message}${stack ?? ""}`).not.toMatch(/\0|\p{Surrogate}/u);
        expect(retryAfterMs).toBe(0);
      }),
      { numRuns: 2_000 },
    );
  });
});
