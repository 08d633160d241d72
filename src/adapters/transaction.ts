/** What all adapters refuse: a database where a transaction is needed. Each statement would commit by itself. */
import { MillraceError } from "../core/errors.ts";

/** `given` is how the library hands out a transaction. */
export function notATransaction(adapter: string, given: string): MillraceError {
  return new MillraceError(
    "OPTION_INVALID",
    `${adapter} needs the transaction that ${given} gives; outside of it the job would not vanish with your rows.`,
  );
}
