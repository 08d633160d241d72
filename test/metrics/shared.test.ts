import { describe, expect, test } from "vitest";
import { Shared } from "../../src/metrics/shared.ts";
import { type Gate, gate } from "../support/engine.ts";

/** Readings that end when the test says so, by a clock that the test moves. */
function setUp() {
  const taken: Gate<string>[] = [];
  let now = 0;
  const shared = new Shared(
    () => {
      const next = gate<string>();
      taken.push(next);
      return next.opened;
    },
    100,
    () => now,
  );
  return {
    taken,
    shared,
    at: (ms: number) => (now = ms),
    async end(n: number, value: string): Promise<void> {
      taken[n]?.open(value);
      await taken[n]?.opened;
    },
  };
}

describe("a shared reading", () => {
  test("is one for all who ask meanwhile, and for a while from when it was begun", async () => {
    const { shared, taken, at, end } = setUp();
    const asked = [shared.read(), shared.read()];
    at(60);
    await end(0, "first");
    expect(await Promise.all(asked)).toEqual(["first", "first"]);
    at(99);
    expect(await shared.read()).toBe("first");
    expect(taken).toHaveLength(1);
  });

  test("is told while the next is under way, until it is twice as old", async () => {
    const { shared, taken, at, end } = setUp();
    void shared.read();
    await end(0, "first");
    at(100);
    expect(await shared.read()).toBe("first");
    expect(taken).toHaveLength(2);
    at(199);
    expect(await shared.read()).toBe("first");
    at(200);
    const waits = shared.read();
    expect(taken).toHaveLength(2);
    await end(1, "second");
    expect(await waits).toBe("second");
  });

  test("that is forgotten is nobody's, also when it ends later", async () => {
    const { shared, taken, end } = setUp();
    const early = shared.read();
    shared.forget();
    const late = shared.read();
    expect(taken).toHaveLength(2);
    await end(1, "after the change");
    await end(0, "before the change");
    expect(await Promise.all([early, late])).toEqual(["before the change", "after the change"]);
    expect(await shared.read()).toBe("after the change");

    shared.forget();
    void shared.read();
    expect(taken).toHaveLength(3);
  });

  test("that fails is told to those who wait for it; the last good one stands until it is too old", async () => {
    let now = 0;
    let broken = true;
    const shared = new Shared(
      () => (broken ? Promise.reject(new Error("gone")) : Promise.resolve("good")),
      100,
      () => now,
    );
    await expect(shared.read()).rejects.toThrow("gone");
    broken = false;
    expect(await shared.read()).toBe("good");
    broken = true;
    now = 150;
    expect(await shared.read()).toBe("good");
    now = 200;
    await expect(shared.read()).rejects.toThrow("gone");
  });
});
