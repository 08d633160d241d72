/** Which events somebody wants to hear. */
import { MillraceError } from "../core/errors.ts";
import { checkedName, didYouMean, refuseUnknown, show } from "../core/options.ts";
import { isUuid } from "../core/uuid.ts";
import type { Heard } from "./shape.ts";
import { type EventType, type Source, eventTypes, isEventType } from "./types.ts";

export interface EventFilter {
  /** Only what happens in this queue. */
  queue?: string;
  /** Types, or groups of them such as `"job.*"`, which has those of many jobs at once too. Default: all. */
  type?: string | readonly string[];
  /** Only what happens to this job, each by itself however much happens beside it. */
  job?: string;
}

export interface Filter {
  readonly queue: string | undefined;
  readonly job: string | undefined;
  readonly types: ReadonlySet<EventType>;
  readonly sources: ReadonlySet<Source>;
}

const allTypes = Object.keys(eventTypes) as EventType[];
const filterNames: ReadonlySet<string> = new Set(["queue", "type", "job"]);

/** Throws `OPTION_UNKNOWN`, `OPTION_INVALID`, `QUEUE_NAME_INVALID`. */
export function readFilter(asked: EventFilter): Filter {
  refuseUnknown("events", asked, filterNames);
  const { queue, type, job } = asked;
  if (job !== undefined && !isUuid(job))
    throw new MillraceError("OPTION_INVALID", `job must be the id of a job, not ${show(job)}.`);
  const types = new Set(type === undefined ? allTypes : [type].flat().flatMap(typesOf));
  return {
    queue: queue === undefined ? undefined : checkedName(queue, "queue"),
    job: job?.toLowerCase(),
    types,
    sources: sourcesOf(types),
  };
}

export function sourcesOf(types: Iterable<EventType>): ReadonlySet<Source> {
  const found = new Set<Source>();
  for (const type of types) {
    const { from } = eventTypes[type];
    if (from !== "stream") found.add(from);
  }
  return found;
}

function typesOf(word: string): EventType[] {
  if (isEventType(word)) return [word];
  const group = /^(\w+)\.\*$/.exec(word)?.[1];
  const types = allTypes.filter((type) => type.split(".")[0]?.replace(/^jobs$/, "job") === group);
  if (types.length > 0) return types;
  throw new MillraceError(
    "OPTION_INVALID",
    `There is no event of type ${show(word)}.${didYouMean(String(word), allTypes)}`,
  );
}

export function matches({ queue, job, types }: Filter, { event, apart }: Heard): boolean {
  if (!types.has(event.type) || (apart && job === undefined)) return false;
  if (job !== undefined && (event as { jobId?: string }).jobId !== job) return false;
  return queue === undefined || (event as { queue?: string | null }).queue === queue;
}
