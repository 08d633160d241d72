/** How far everything is read, and that as a text: opaque, small, and good on every server of the same database. */
import { MillraceError } from "../core/errors.ts";
import type { ArrivalsMark } from "./arrivals-store.ts";
import { IdLine, type Span } from "./id-line.ts";
import { type Numbered, type Source, sources } from "./types.ts";

/** By their place in here they are written down: it only ever grows at its end. */
const numbered: readonly Numbered[] = sources.filter((source: Source) => source !== "jobs");

/** A source that nobody follows has no place. */
export interface Place {
  /** When it was last brought up to date, in microseconds since 1970. */
  at: number;
  readonly lines: Map<Numbered, IdLine>;
  /** Workers whose end is to be told. */
  live: number[];
  /** Jobs that came promptly, and those that came late. */
  arrivals: { prompt: ArrivalsMark; belated: ArrivalsMark } | undefined;
}

export const nowhere = (): Place => ({ at: 0, lines: new Map(), live: [], arrivals: undefined });

type WrittenMark = [at: number, open: readonly number[], enqueuing: readonly number[], hidden: 0 | 1, snapshot: string];
type Written = [
  version: 1,
  at: number,
  lines: [source: number, high: number, ...gaps: number[]][],
  live: readonly number[],
  arrivals: [WrittenMark, WrittenMark] | [],
];

export function writePlace({ at, lines, live, arrivals }: Place): string {
  const marks: [WrittenMark, WrittenMark] | [] = arrivals
    ? [writeMark(arrivals.prompt), writeMark(arrivals.belated)]
    : [];
  const written: Written = [
    1,
    at,
    [...lines].map(([source, { high, gaps }]) => [numbered.indexOf(source), high, ...gaps.flat()]),
    live,
    marks,
  ];
  return Buffer.from(JSON.stringify(written)).toString("base64url");
}

function writeMark({ at, open, enqueuing, hidden, snapshot }: ArrivalsMark): WrittenMark {
  return [at, open, enqueuing, hidden ? 1 : 0, snapshot];
}

/** Longer than any that is written while the database is well. */
const textMax = 16_384;
const gapsMax = 1_000;

/** Throws `OPTION_INVALID` for anything but what `writePlace` made. */
export function readPlace(text: string): Place {
  try {
    if (text.length > textMax) throw new Error("too long");
    const written: unknown = JSON.parse(Buffer.from(text, "base64url").toString("utf8"));
    if (!isWritten(written)) throw new Error("not ours");
    const [, at, lines, live, arrivals] = written;
    const [prompt, belated] = arrivals;
    return {
      at,
      lines: new Map(lines.map(([source, high, ...gaps]) => [numbered[source] as Numbered, lineOf(high, gaps)])),
      live: [...live],
      arrivals: prompt && belated ? { prompt: markOf(prompt), belated: markOf(belated) } : undefined,
    };
  } catch (cause) {
    throw new MillraceError("OPTION_INVALID", "The place to go on from must be the id of an event of this stream.", {
      cause,
    });
  }
}

function lineOf(high: number, gaps: readonly number[]): IdLine {
  const spans: Span[] = [];
  for (let i = 0; i + 1 < gaps.length; i += 2) spans.push([gaps[i] as number, gaps[i + 1] as number]);
  return new IdLine(high, spans);
}

function markOf([at, open, enqueuing, hidden, snapshot]: WrittenMark): ArrivalsMark {
  return { at, open, enqueuing, hidden: hidden === 1, snapshot };
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const areCounts = (value: unknown): boolean => Array.isArray(value) && value.every(isCount);

function isWritten(value: unknown): value is Written {
  if (!Array.isArray(value) || value.length !== 5) return false;
  const [version, at, lines, live, arrivals] = value as unknown[];
  return (
    version === 1 &&
    isCount(at) &&
    Array.isArray(lines) &&
    lines.every((line: unknown) => areCounts(line) && isLine(line as number[])) &&
    areCounts(live) &&
    Array.isArray(arrivals) &&
    (arrivals.length === 0 || (arrivals.length === 2 && arrivals.every(isMark)))
  );
}

function isLine([source, , ...gaps]: number[]): boolean {
  return source !== undefined && source < numbered.length && gaps.length % 2 === 0 && gaps.length <= 2 * gapsMax;
}

function isMark(value: unknown): boolean {
  if (!Array.isArray(value) || value.length !== 5) return false;
  const [at, open, enqueuing, hidden, snapshot] = value as unknown[];
  const isSnapshot = typeof snapshot === "string" && /^\d{1,20}:\d{1,20}:(\d{1,20}(,\d{1,20})*)?$/.test(snapshot);
  return isCount(at) && areCounts(open) && areCounts(enqueuing) && (hidden === 0 || hidden === 1) && isSnapshot;
}
