import { afterEach, expect, test, vi } from "vitest";
import { Gauge } from "../../src/http/gauge.ts";

afterEach(() => void vi.useRealTimers());

test("a reading is told while the next is under way, for two seconds after it was everybody's for two", async () => {
  vi.useFakeTimers({ toFake: ["performance"] });
  let asked = 0;
  const never = new Promise<number>(() => undefined);
  const gauge = new Gauge(() => (++asked === 1 ? Promise.resolve(7) : never));
  const soon = () => performance.now() + 3_600_000; // who waits for the next waits until the test is given up
  expect(await gauge.read(soon())).toEqual({ ok: true, value: 7 });
  vi.advanceTimersByTime(1_999);
  expect(await gauge.read(soon())).toEqual({ ok: true, value: 7 });
  expect(asked).toBe(1);
  vi.advanceTimersByTime(2_000);
  expect(await gauge.read(soon())).toEqual({ ok: true, value: 7 });
  expect(asked).toBe(2);

  vi.advanceTimersByTime(2);
  const now = performance.now();
  expect(await gauge.read(now)).toEqual({ ok: true, value: 7 }); // late: the last one stands in
  vi.advanceTimersByTime(10_000);
  expect(await gauge.read(performance.now())).toMatchObject({ ok: false });
  expect(asked).toBe(2);
});
