/** When patterns and intervals tick, across time zones and the days on which clocks are changed. */
import { describe, expect, test } from "vitest";
import { previewTicks } from "../../src/schedules/preview.ts";
import { type Timing, nextTick, stretch } from "../../src/schedules/ticks.ts";

const cron = (pattern: string, zone = "UTC"): Timing => ({ cron: pattern, everyMs: null, zone });
const every = (everyMs: number): Timing => ({ cron: null, everyMs, zone: "UTC" });
const ms = (time: string): number => Date.parse(time);

function ticksOf(timing: Timing, after: string, count: number, anchor = 0): string[] {
  const ticks: string[] = [];
  for (let at = nextTick(timing, anchor, ms(after)); at !== null && ticks.length < count;) {
    ticks.push(new Date(at).toISOString().replace(".000", ""));
    at = nextTick(timing, anchor, at);
  }
  return ticks;
}

describe("a pattern", () => {
  test("ticks by the clock of its zone", () => {
    expect(ticksOf(cron("0 8 * * *", "Europe/Berlin"), "2027-01-01T00:00:00Z", 2)).toEqual([
      "2027-01-01T07:00:00Z",
      "2027-01-02T07:00:00Z",
    ]);
    expect(ticksOf(cron("0 8 * * *", "Asia/Kolkata"), "2027-01-01T00:00:00Z", 1)).toEqual(["2027-01-01T02:30:00Z"]);
  });

  test("may have seconds, and a moment within a second is not that second", () => {
    const timing = cron("*/10 * * * * *");
    expect(ticksOf(timing, "2027-01-01T00:00:00.999Z", 1)).toEqual(["2027-01-01T00:00:10Z"]);
    expect(ticksOf(timing, "2027-01-01T00:00:09.999Z", 2)).toEqual(["2027-01-01T00:00:10Z", "2027-01-01T00:00:20Z"]);
  });

  test("is the same whatever it was asked before", () => {
    const timing = cron("7 3 * * *");
    const asked = ["2027-05-05T00:00:00Z", "2027-05-04T03:07:00Z", "2027-05-05T03:07:00Z", "2027-05-05T03:06:59Z"];
    const answers = asked.map((after) => ticksOf(timing, after, 1)[0]);
    expect(answers).toEqual([
      "2027-05-05T03:07:00Z",
      "2027-05-05T03:07:00Z",
      "2027-05-06T03:07:00Z",
      "2027-05-05T03:07:00Z",
    ]);
  });

  test("for a time that a spring day does not have runs at the first moment it has", () => {
    expect(ticksOf(cron("30 2 * * *", "Europe/Berlin"), "2027-03-27T12:00:00Z", 2)).toEqual([
      "2027-03-28T01:00:00Z",
      "2027-03-29T00:30:00Z",
    ]);
  });

  test("for a time that an autumn day has twice runs once", () => {
    expect(ticksOf(cron("30 2 * * *", "Europe/Berlin"), "2027-10-30T12:00:00Z", 2)).toEqual([
      "2027-10-31T00:30:00Z",
      "2027-11-01T01:30:00Z",
    ]);
  });

  test.each([
    ["Europe/Berlin", "2027-03-28T00:00:00Z"],
    ["Europe/Berlin", "2027-10-31T00:00:00Z"],
    ["America/New_York", "2027-11-07T05:00:00Z"],
    ["Australia/Lord_Howe", "2027-04-03T14:00:00Z"],
  ])("that comes every half hour goes on in real time while the clocks of %s change after %s", (zone, after) => {
    const ticks = ticksOf(cron("*/30 * * * *", zone), after, 8).map(ms);
    expect(ticks.map((tick, i) => tick - (ticks[i - 1] ?? ms(after)))).toEqual(
      Array.from({ length: 8 }, () => 1_800_000),
    );
  });

  test("that never comes has no next tick", () => {
    expect(nextTick(cron("0 0 30 2 *"), 0, 0)).toBeNull();
  });
});

describe("an interval", () => {
  test("is counted from its anchor, however late it is asked", () => {
    const anchor = ms("2027-01-01T00:00:03Z");
    expect(ticksOf(every(7_000), "2027-01-01T00:00:03Z", 2, anchor)).toEqual([
      "2027-01-01T00:00:10Z",
      "2027-01-01T00:00:17Z",
    ]);
    expect(ticksOf(every(7_000), "2027-01-01T01:00:00.123Z", 1, anchor)).toEqual(
      ["2027-01-01T01:00:00Z"].map(() => {
        const gone = ms("2027-01-01T01:00:00.123Z") - anchor;
        return new Date(anchor + Math.ceil(gone / 7_000) * 7_000).toISOString().replace(".000", "");
      }),
    );
  });
});

describe("a stretch of time", () => {
  const first = ms("2027-01-01T00:00:00Z");

  test.each([
    ["of an interval", every(60_000)],
    ["of a pattern", cron("* * * * *")],
  ])("%s is counted, with the newest ticks one by one", (_, timing) => {
    expect(stretch(timing, first, first, first + 600_000, 2)).toEqual({
      count: 10,
      atLeast: false,
      newest: [first + 480_000, first + 540_000],
      lastOlder: first + 420_000,
    });
    expect(stretch(timing, first, first, first, 2)).toMatchObject({ count: 0, newest: [] });
    expect(stretch(timing, first, first, first + 1, 2)).toMatchObject({ count: 1, newest: [first], lastOlder: null });
    expect(stretch(timing, first, first, first + 60_001, 0)).toMatchObject({
      count: 2,
      newest: [],
      lastOlder: first + 60_000,
    });
  });

  test("of a pattern is walked over no longer than two thousand ticks, and its newest are found all the same", () => {
    const end = first + 86_400_000;
    const { count, atLeast, newest, lastOlder } = stretch(cron("* * * * * *"), 0, first, end, 3);
    expect({ count, atLeast, lastOlder }).toEqual({ count: 2_000, atLeast: true, lastOlder: end - 4_000 });
    expect(newest).toEqual([end - 3_000, end - 2_000, end - 1_000]);
  });
});

describe("a preview", () => {
  const remarks = (timing: Timing, after: string, count: number): (string | null)[][] =>
    previewTicks(timing, 0, ms(after), count).map(({ local, remark }) => [local, remark]);

  test("says what the clocks do to a time in spring", () => {
    expect(remarks(cron("30 2 * * *", "Europe/Berlin"), "2027-03-26T12:00:00Z", 3)).toEqual([
      ["2027-03-27 02:30:00 +01:00", null],
      [
        "2027-03-28 03:00:00 +02:00",
        "02:30:00 does not exist on this day, the clocks go forward: it runs at 03:00:00.",
      ],
      ["2027-03-29 02:30:00 +02:00", null],
    ]);
  });

  test("says what the clocks do to a time in autumn", () => {
    expect(remarks(cron("30 2 * * *", "Europe/Berlin"), "2027-10-30T12:00:00Z", 2)).toEqual([
      [
        "2027-10-31 02:30:00 +02:00",
        "02:30:00 comes twice, the clocks go back: this is the first one, and it runs once.",
      ],
      ["2027-11-01 02:30:00 +01:00", "The clocks have gone back by 60 min since the one before."],
    ]);
    expect(remarks(cron("30 * * * *", "Europe/Berlin"), "2027-10-31T00:00:00Z", 3).map(([, remark]) => remark)).toEqual(
      [
        "02:30:00 comes twice, the clocks go back: this is the first one.",
        "02:30:00 comes twice, the clocks go back: this is the second one.",
        null,
      ],
    );
  });

  test("has nothing to remark on intervals and on UTC", () => {
    expect(remarks(every(3_600_000), "2027-10-30T22:30:00Z", 5).filter(([, remark]) => remark !== null)).toEqual([]);
    expect(remarks(cron("@hourly"), "2027-10-30T22:30:00Z", 5).filter(([, remark]) => remark !== null)).toEqual([]);
  });
});
