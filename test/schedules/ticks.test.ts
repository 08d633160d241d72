/** When patterns and intervals tick, across time zones and the days on which clocks are changed. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { previewTicks } from "../../src/schedules/preview.ts";
import { type Timing, nextTick, stretch } from "../../src/schedules/ticks.ts";
import { changeIn } from "../../src/schedules/wall.ts";

const cron = (pattern: string, zone = "UTC"): Timing => ({ cron: pattern, everyMs: null, zone });
const every = (everyMs: number): Timing => ({ cron: null, everyMs, zone: "UTC" });
const ms = (time: string): number => Date.parse(time);

const two = (number: number): string => String(number).padStart(2, "0");

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

  test("that never comes has no next tick", () => {
    expect(nextTick(cron("0 0 30 2 *"), 0, 0)).toBeNull();
  });
});

/** Ticks after a moment, by the clock of the zone: `28 03:00+02`. */
function wallsOf(pattern: string, zone: string, after: string, count: number): string[] {
  const format = new Intl.DateTimeFormat("sv", { timeZone: zone, dateStyle: "short", timeStyle: "medium" });
  return ticksOf(cron(pattern, zone), after, count).map((at) => {
    const wall = format.format(ms(at));
    const hours = (ms(`${wall.replace(" ", "T")}Z`) - ms(at)) / 3_600_000;
    return `${wall.slice(8).replace(/:00$/, "")}${hours < 0 ? "" : "+"}${hours}`;
  });
}

describe("a pattern with fixed hours", () => {
  test.each([
    ["30 2 * * *", ["28 03:00+2", "29 02:30+2"]],
    ["0 2,14 * * *", ["28 03:00+2", "28 14:00+2", "29 02:00+2"]],
    ["30 2,14 * * *", ["28 03:00+2", "28 14:30+2", "29 02:30+2"]],
    ["30 1-5 * * *", ["28 01:30+1", "28 03:00+2", "28 03:30+2", "28 04:30+2", "28 05:30+2"]],
    ["15,45 2 * * *", ["28 03:00+2", "29 02:15+2", "29 02:45+2"]],
    ["0,30 2,3 * * *", ["28 03:00+2", "28 03:30+2", "29 02:00+2"]],
    ["*/10 30 2 * * *", ["28 03:00+2", "29 02:30+2", "29 02:30:10+2"]],
    ["* 0-23/2 * * *", [...Array.from({ length: 60 }, (_, n) => `28 00:${two(n)}+1`), "28 03:00+2", "28 04:00+2"]],
    ["30 2 * * SUN", ["28 03:00+2", "04 02:30+2"]],
    ["0 2 28 3 *", ["28 03:00+2", "28 02:00+2"]],
  ])("%s: what a spring day does not have ticks as soon as the clocks have gone over it", (pattern, ticks) => {
    expect(wallsOf(pattern, "Europe/Berlin", "2027-03-27T22:59:59Z", ticks.length)).toEqual(ticks);
  });

  test.each([
    ["30 2 * * *", ["31 02:30+2", "01 02:30+1"]],
    ["0 2,14 * * *", ["31 02:00+2", "31 14:00+1", "01 02:00+1"]],
    ["30 1-5 * * *", ["31 01:30+2", "31 02:30+2", "31 03:30+1", "31 04:30+1"]],
    ["15,45 2 * * *", ["31 02:15+2", "31 02:45+2", "01 02:15+1"]],
    ["*/30 59 2 * * *", ["31 02:59+2", "31 02:59:30+2", "01 02:59+1"]],
    ["@daily", ["01 00:00+1", "02 00:00+1"]],
  ])("%s: what an autumn day has twice ticks the first time", (pattern, ticks) => {
    expect(wallsOf(pattern, "Europe/Berlin", "2027-10-30T22:00:00Z", ticks.length)).toEqual(ticks);
  });

  test("asked while the clocks show a time for the second time, knows that it had ticked", () => {
    expect(wallsOf("*/5 2 * * *", "Europe/Berlin", "2027-10-31T01:17:00Z", 1)).toEqual(["01 02:00+1"]);
    expect(wallsOf("0 3 * * *", "Europe/Berlin", "2027-10-31T01:17:00Z", 1)).toEqual(["31 03:00+1"]);
  });

  test.each([
    // Midnight does not exist.
    ["0 0,12 * * *", "Africa/Cairo", "2027-04-29T12:00:00Z", ["30 01:00+3", "30 12:00+3", "01 00:00+3"]],
    ["30 23 * * *", "Africa/Cairo", "2027-10-27T21:00:00Z", ["28 23:30+3", "29 23:30+2"]],
    ["0 0 * * *", "America/Sao_Paulo", "2018-11-03T04:00:00Z", ["04 01:00-2", "05 00:00-2"]],
    ["0,30 23 * * *", "America/Sao_Paulo", "2018-02-17T12:00:00Z", ["17 23:00-2", "17 23:30-2", "18 23:00-3"]],
    // Half an hour.
    ["15 2,3 * * *", "Australia/Lord_Howe", "2027-10-02T12:00:00Z", ["03 02:30+11", "03 03:15+11", "04 02:15+11"]],
    ["45 1,2 * * *", "Australia/Lord_Howe", "2027-04-03T12:00:00Z", ["04 01:45+11", "04 02:45+10.5", "05 01:45+10.5"]],
    // The 30th of December 2011 does not exist.
    ["0 6,12 * * *", "Pacific/Apia", "2011-12-29T17:00:00Z", ["29 12:00-10", "31 00:00+14", "31 06:00+14"]],
  ])("%s in %s after %s", (pattern, zone, after, ticks) => {
    expect(wallsOf(pattern, zone, after, ticks.length)).toEqual(ticks);
  });
});

describe("a pattern without fixed hours", () => {
  test.each([
    ["15,45 * * * *", "2027-03-28T00:00:00Z", ["28 01:15+1", "28 01:45+1", "28 03:15+2"]],
    ["0 */2 * * *", "2027-03-27T23:30:00Z", ["28 04:00+2", "28 06:00+2"]],
    ["0 */2 * * *", "2027-10-30T22:30:00Z", ["31 02:00+2", "31 02:00+1", "31 04:00+1"]],
    ["@hourly", "2027-10-30T23:30:00Z", ["31 02:00+2", "31 02:00+1", "31 03:00+1"]],
    ["0 0 ? * * *", "2027-10-30T23:30:00Z", ["31 02:00+2", "31 02:00+1", "31 03:00+1"]],
    // Of a day of the year: the clocks change back and forth in between.
    ["0 * 31 12 *", "2027-02-01T00:00:00Z", ["31 00:00+1", "31 01:00+1"]],
  ])("%s ticks whenever the clocks show such a time (after %s)", (pattern, after, ticks) => {
    expect(wallsOf(pattern, "Europe/Berlin", after, ticks.length)).toEqual(ticks);
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
});

describe("ticks around any change of the clocks", () => {
  // Once they were changed a minute past midnight in Newfoundland.
  const step = 60_000;
  const zones = [
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Antarctica/Troll",
    "UTC",
  ];
  const some = (most: number): fc.Arbitrary<number[]> =>
    fc.uniqueArray(fc.nat(most), { minLength: 1, maxLength: 4 }).map((all) => all.toSorted((a, b) => a - b));
  const range = fc.tuple(fc.nat(23), fc.nat(23), fc.integer({ min: 1, max: 4 })).map(([a, b, by]) => {
    const [from, to] = [Math.min(a, b), Math.max(a, b)];
    const all = Array.from({ length: Math.floor((to - from) / by) + 1 }, (_, n) => from + n * by);
    return { field: `${from}-${to}${by === 1 ? "" : `/${by}`}`, all };
  });
  const list = some(23).map((all) => ({ field: all.join(","), all }));
  const every = fc.constantFrom(1, 2, 3).map((by) => ({
    field: by === 1 ? "*" : `*/${by}`,
    all: Array.from({ length: 24 / by }, (_, n) => n * by),
  }));

  const wallOf = (format: Intl.DateTimeFormat, at: number): number => ms(`${format.format(at).replace(" ", "T")}Z`);

  /** What must tick, told minute by minute: of wall times, those that the clocks reach, or all that they show. */
  function expected(
    zone: string,
    from: number,
    to: number,
    matches: (wall: number) => boolean,
    once: boolean,
  ): number[] {
    const format = new Intl.DateTimeFormat("sv", { timeZone: zone, dateStyle: "short", timeStyle: "medium" });
    const ticks: number[] = [];
    let furthest = wallOf(format, from - 6 * 3_600_000);
    for (let at = from - 6 * 3_600_000; at <= to; at += step) {
      const wall = wallOf(format, at);
      let comes = !once && matches(wall);
      for (; once && furthest < wall; furthest += step) comes ||= matches(furthest + step);
      if (comes && at > from) ticks.push(at);
    }
    return ticks;
  }

  test.each([
    ["fixed hours: each wall time ticks once", fc.oneof(list, range), true],
    ["every hour or two: each moment that shows one ticks", every, false],
  ])("%s, and none ticks twice", (_, anyHours, once) => {
    fc.assert(
      fc.property(
        fc.constantFrom(...zones),
        fc.integer({ min: ms("1995-01-01T00:00:00Z") / step, max: ms("2037-01-01T00:00:00Z") / step }),
        some(11).map((all) => all.map((n) => n * 5)),
        anyHours,
        fc.option(fc.nat(6)),
        (zone, steps, minutes, hours, day) => {
          const some = steps * step;
          const change = changeIn(zone, some, some + 366 * 86_400_000) ?? some;
          const from = change - 86_400_000 + (some % 86_400_000);
          const to = from + 36 * 3_600_000;
          const matches = (wall: number): boolean => {
            const date = new Date(wall);
            return (
              minutes.includes(date.getUTCMinutes()) &&
              hours.all.includes(date.getUTCHours()) &&
              (day === null || date.getUTCDay() === day)
            );
          };
          const timing = cron(`${minutes.join(",")} ${hours.field} * * ${day ?? "*"}`, zone);
          const ticks: number[] = [];
          for (let at = nextTick(timing, 0, from); at !== null && at <= to; at = nextTick(timing, 0, at)) {
            expect(at).toBeGreaterThan(ticks.at(-1) ?? from);
            ticks.push(at);
          }
          const iso = (all: number[]): string[] => all.map((at) => new Date(at).toISOString());
          expect(iso(ticks)).toEqual(iso(expected(zone, from, to, matches, once)));
        },
      ),
      { numRuns: 100 },
    );
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

  test.each([
    ["* * 2,3 * * *", "2027-03-28T01:00:02Z", ["27T02:59:58", "27T02:59:59", "28T01:00:00", "28T01:00:01"]],
    ["* * 1,2 * * *", "2027-10-31T01:30:00Z", ["31T00:59:57", "31T00:59:58", "31T00:59:59"]],
    ["* * * * * *", "2027-10-31T01:00:01Z", ["31T00:59:58", "31T00:59:59", "31T01:00:00"]],
  ])("of %s in Berlin to before %s is the same from its other end", (pattern, end, ticks) => {
    const { newest, lastOlder } = stretch(cron(pattern, "Europe/Berlin"), 0, ms(end) - 6 * 86_400_000, ms(end), 3);
    const told = [...(lastOlder === null ? [] : [lastOlder]), ...newest].map((at) =>
      new Date(at).toISOString().slice(8, 19),
    );
    expect(told.slice(-ticks.length)).toEqual(ticks);
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

  test("says which times of a spring day are one run, and which of an autumn day are the first", () => {
    const spring = remarks(cron("15,45 2,14 * * *", "Europe/Berlin"), "2027-03-28T00:00:00Z", 2);
    expect(spring).toEqual([
      [
        "2027-03-28 03:00:00 +02:00",
        "02:15:00 to 02:45:00 do not exist on this day, the clocks go forward: one run at 03:00:00 stands for them.",
      ],
      ["2027-03-28 14:15:00 +02:00", null],
    ]);
    const autumn = remarks(cron("0 2,14 * * *", "Europe/Berlin"), "2027-10-30T23:00:00Z", 2);
    expect(autumn.map(([, remark]) => remark)).toEqual([
      "02:00:00 comes twice, the clocks go back: this is the first one, and it runs once.",
      "The clocks have gone back by 60 min since the one before.",
    ]);
    const midnight = remarks(cron("0 0,12 * * *", "Africa/Cairo"), "2027-04-29T12:00:00Z", 1);
    expect(midnight).toEqual([
      [
        "2027-04-30 01:00:00 +03:00",
        "00:00:00 does not exist on this day, the clocks go forward: it runs at 01:00:00.",
      ],
    ]);
    // Nothing was skipped: its own time is the first after the gap.
    const own = remarks(cron("0 3 * * *", "Europe/Berlin"), "2027-03-28T00:00:00Z", 1);
    expect(own[0]?.[1]).toBe("The clocks have gone forward by 60 min since the one before.");
  });

  test("has nothing to remark on intervals and on UTC", () => {
    expect(remarks(every(3_600_000), "2027-10-30T22:30:00Z", 5).filter(([, remark]) => remark !== null)).toEqual([]);
    expect(remarks(cron("@hourly"), "2027-10-30T22:30:00Z", 5).filter(([, remark]) => remark !== null)).toEqual([]);
  });
});
