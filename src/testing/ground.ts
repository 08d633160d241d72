/** Where test databases come from, and where they go back to: an emptied one is as good as new, and a hundred times as fast. */
import type { PGlite } from "../db/embedded.ts";
import { startClock } from "./clock-store.ts";
import { dropForeign, restoreState, shapeOf } from "./state-store.ts";
import { openTemplate } from "./template.ts";

/** Ready for the next test. */
const spare: Ground[] = [];
/** An open PGlite keeps its process alive: one that nobody wants for this long is closed, in ms. */
const spareMs = 1_000;

/** One database, with one clock. */
export class Ground {
  readonly pglite: PGlite;
  readonly #shape: string;
  #closing: NodeJS.Timeout | undefined;

  private constructor(pglite: PGlite, shape: string) {
    this.pglite = pglite;
    this.#shape = shape;
  }

  /** An empty database in which it is `nowMs`. */
  static async take(nowMs: number): Promise<Ground> {
    let ground = spare.pop();
    if (ground) clearTimeout(ground.#closing);
    else {
      const pglite = await openTemplate();
      ground = new Ground(pglite, await shapeOf(pglite));
    }
    await startClock(ground.pglite, nowMs);
    return ground;
  }

  /** Empties it for the next test. One whose tables were changed in another way is closed. */
  async giveBack(): Promise<void> {
    const { pglite } = this;
    await dropForeign(pglite);
    if ((await shapeOf(pglite)) !== this.#shape) return pglite.close();
    await restoreState(pglite, "empty");
    await pglite.exec("discard all");
    spare.push(this);
    this.#closing = setTimeout(() => {
      spare.splice(spare.indexOf(this), 1);
      void pglite.close();
    }, spareMs).unref();
  }
}
