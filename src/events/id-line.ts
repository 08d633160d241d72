/**
 * How far one table is read. Identity numbers are given out before their transactions commit, so the highest number seen is not the
 * end of what was read: numbers below it that were not there yet are kept as gaps and asked for again, until they come or no
 * transaction is left that could bring them (docs/decisions/0012-events-are-read.md has the argument).
 */

/** Numbers from … to, both included. */
export type Span = readonly [from: number, to: number];

interface Gap {
  readonly span: Span;
  /** Transactions that may still fill it; undefined: not asked yet. */
  readonly writers: ReadonlySet<string> | undefined;
}

/** A prepared transaction has lost the name it had while it ran, so that one of them keeps every gap open. */
export const prepared = "prepared";

export class IdLine {
  #high: number;
  #gaps: readonly Gap[];
  /** Gaps that nobody can fill any more unless the next read finds them filled. */
  #doomed: ReadonlySet<Gap> = new Set();

  constructor(high: number, gaps: readonly Span[] = []) {
    this.#high = high;
    this.#gaps = gaps.map((span) => ({ span, writers: undefined }));
  }

  get high(): number {
    return this.#high;
  }

  get gaps(): readonly Span[] {
    return this.#gaps.map(({ span }) => span);
  }

  /** Before a read: who could have written the table when it was asked, which was after the last read. */
  beforeRead(writers: ReadonlySet<string>): void {
    this.#gaps = this.#gaps.map(({ span, writers: noted = writers }) => {
      const still = [...noted].filter((writer) => writers.has(writer));
      return { span, writers: new Set(writers.has(prepared) ? [...still, prepared] : still) };
    });
    this.#doomed = new Set(this.#gaps.filter(({ writers: left }) => left?.size === 0));
  }

  /** After the read: the numbers it found, in order; all that were visible in the gaps, and some or all above `high`. */
  read(found: readonly number[]): void {
    const open = this.#gaps.filter((gap) => !this.#doomed.has(gap));
    const gaps = open.flatMap(({ span, writers }) => without(span, found).map((rest) => ({ span: rest, writers })));
    let last = this.#high;
    for (const id of found) {
      if (id <= last) continue;
      if (id > last + 1) gaps.push({ span: [last + 1, id - 1], writers: undefined });
      last = id;
    }
    this.#gaps = gaps;
    this.#doomed = new Set();
    this.#high = last;
  }
}

/** What is left of a span without these numbers, which are in order. */
function without([from, to]: Span, found: readonly number[]): Span[] {
  const rest: Span[] = [];
  let next = from;
  for (const id of found) {
    if (id < next) continue;
    if (id > to) break;
    if (id > next) rest.push([next, id - 1]);
    next = id + 1;
  }
  if (next <= to) rest.push([next, to]);
  return rest;
}
