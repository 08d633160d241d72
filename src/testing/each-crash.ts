/** One scenario, as many times as it has statements: each time the process dies at another one. */
import { type CrashPoint, Fuse, brief } from "./fuse.ts";

/** What a proof is told of the crash before it. */
export interface Crash extends CrashPoint {
  /** What the scenario threw when its process died; undefined when it swallowed that and returned. */
  readonly thrown: unknown;
}

/** A process that can die, and be followed by another. */
interface Mortal {
  recover(): Promise<Mortal>;
  close(): Promise<void>;
}

export interface Lives<Mill extends Mortal> {
  save(): Promise<void>;
  restore(): Promise<void>;
  begin(fuse: Fuse): Promise<Mill>;
}

/** Opening a Millrace takes statements too; none of them is the scenario's. */
async function beginArmed<Mill extends Mortal>(
  lives: Lives<Mill>,
  at: Pick<CrashPoint, "statement" | "moment"> | undefined,
): Promise<{ mill: Mill; fuse: Fuse }> {
  const fuse = new Fuse();
  const mill = await lives.begin(fuse);
  fuse.arm(at);
  return { mill, fuse };
}

export async function eachCrash<Mill extends Mortal>(
  lives: Lives<Mill>,
  scenario: (mill: Mill) => Promise<unknown>,
  proof: (mill: Mill, crash: Crash | undefined) => Promise<unknown>,
): Promise<CrashPoint[]> {
  await lives.save();
  const points: CrashPoint[] = [];

  /** Undefined when it ended before that point. */
  const runOnce = async (at: Pick<CrashPoint, "statement" | "moment"> | undefined): Promise<Fuse | undefined> => {
    await lives.restore();
    const { mill, fuse } = await beginArmed(lives, at);
    let after: Mill | undefined;
    try {
      let thrown: unknown;
      try {
        await scenario(mill);
      } catch (error) {
        if (!fuse.error) throw error; // the scenario itself is wrong
        thrown = error;
      }
      const { point } = fuse;
      if (at && !point) return undefined;
      if (point) points.push(point);
      after = fuse.error ? ((await mill.recover()) as Mill) : mill;
      await proof(after, point && { ...point, thrown }).catch((error: unknown) => {
        throw placed(error, point);
      });
      return fuse;
    } finally {
      await after?.close();
      await mill.close();
    }
  };

  try {
    await runOnce(undefined);
    for (let statement = 1; ; statement += 1) {
      const fuse = await runOnce({ statement, moment: "before" });
      if (fuse === undefined) return points;
      // Inside a transaction it makes no difference: it is rolled back.
      if (fuse.alone) await runOnce({ statement, moment: "after" });
    }
  } finally {
    await lives.restore();
  }
}

/** The error itself, so that a test runner still shows its diff, with the place in front of its message. */
function placed(error: unknown, point: CrashPoint | undefined): unknown {
  if (!(error instanceof Error)) return error;
  const where = point
    ? `After a crash ${point.moment} statement ${point.statement}, ${brief(point.sql)}`
    : "Without any crash";
  error.message = `${where}: ${error.message}`;
  return error;
}
