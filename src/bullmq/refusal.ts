/** Options of BullMQ that mean nothing here are refused: ignored, they would promise what does not happen. */
import { MillraceError } from "../core/errors.ts";
import { refuseUnknown } from "../core/options.ts";

const reasons: Readonly<Record<string, string>> = {
  connection:
    "the queues are in PostgreSQL; set DATABASE_URL, or give createQueueManager a databaseUrl, instead of Redis",
  prefix: "give createQueueManager a schema instead",
  limiter: "there is no rate limit yet; lower the concurrency",
  removeOnComplete: "finished jobs stay until cleanQueue removes them",
  removeOnFail: "finished jobs stay until cleanQueue removes them",
};

/** Refuses what BullMQ's users are most likely to bring along, with the reason; and, given `known`, every other unknown option. */
export function refuseForeign(where: string, given: object, known?: ReadonlySet<string>): void {
  const foreign = Object.keys(given).find((key) => Object.hasOwn(reasons, key));
  if (foreign !== undefined)
    throw new MillraceError("OPTION_UNKNOWN", `${where}: no option "${foreign}" here: ${reasons[foreign]}.`);
  if (known !== undefined) refuseUnknown(where, given, known);
}
