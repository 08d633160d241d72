/** The routes of dead letters: one by one, counted by what they have in common, and what is done to many of them. */
import { Hono } from "hono";
import { z } from "zod";
import type { Millrace } from "../app/millrace.ts";
import type { Duration } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { deadLetterGroups } from "../jobs/dead-letters-store.ts";
import { begunView, deadLetterFilter, filterOf, pace } from "./bulk-view.ts";
import type { ApiContext, ApiEnv } from "./env.ts";
import { pageOf } from "./job-view.ts";
import { placement } from "./orders.ts";
import { either, given, readOptionalBody, readQuery } from "./read.ts";

const listQuery = z.strictObject({
  group: z.enum(deadLetterGroups).optional(),
  queue: z.string().optional(),
  task: z.string().optional(),
  job_type: z.string().optional(),
  tag: z.string().optional(),
  error_code: z.string().optional(),
  reason: z.string().optional(),
  limit: z.coerce.number().int().min(1).max(500).optional(),
  after: z.string().optional(),
  cursor: z.string().optional(),
});
const { queue: _, ...times } = placement;
const actBody = z.strictObject({ ...deadLetterFilter, ...pace });
/** `to_queue`: where the new jobs go; `queue` is where the dead letters are. */
const replayBody = actBody.extend({ ...times, to_queue: z.string().nullish() });

const maxBodyBytes = 65_536;
/** A purge that says no age spares what failed today: somebody may still be looking at it. */
const purgeOlderThan: Duration = "24h";

export function deadLetterRoutes(mill: Millrace): Hono<ApiEnv> {
  const options = ({ preview, all, per_second: perSecond, by }: z.infer<typeof actBody>) =>
    given({ dryRun: preview, all, perSecond, by });
  const begin = async (c: ApiContext, action: "retry" | "remove") => {
    const body = await readOptionalBody(c, actBody, maxBodyBytes);
    const filter = filterOf(body);
    const aged = action === "remove" ? { ...filter, olderThan: filter.olderThan ?? purgeOlderThan } : filter;
    const begun = await mill.bulk(
      action,
      { ...requireCondition(filter, body.all), ...aged, status: "failed" },
      options(body),
    );
    return c.json(begunView(begun), "id" in begun ? 202 : 200);
  };

  return new Hono<ApiEnv>()
    .get("/dlq", async (c) => {
      const query = readQuery(c, listQuery);
      const { group, queue, tag, error_code: errorCode, reason, limit } = query;
      const task = either(query, "task", "job_type");
      if (group === undefined) {
        const after = either(query, "after", "cursor");
        return c.json(
          pageOf(
            await mill.jobs({ ...given({ queue, task, tag, errorCode, reason, limit, after }), status: "failed" }),
          ),
        );
      }
      if (tag !== undefined || limit !== undefined || query.after !== undefined || query.cursor !== undefined)
        throw new MillraceError("BAD_REQUEST", "With group there are no tag, limit and after: all groups are told.");
      const groups = await mill.deadLetters(group, given({ queue, task, errorCode, reason }));
      return c.json({ group, groups, total: groups.reduce((sum, { count }) => sum + count, 0) });
    })
    .post("/dlq/retry", (c) => begin(c, "retry"))
    .post("/dlq/purge", (c) => begin(c, "remove"))
    .post("/dlq/replay", async (c) => {
      const { to_queue: queue, ...body } = await readOptionalBody(c, replayBody, maxBodyBytes);
      const { priority, delay } = body;
      const filter = requireCondition(filterOf(body), body.all);
      const begun = await mill.bulk(
        "replay",
        { ...filter, status: "failed" },
        { ...options(body), ...given({ queue, priority, delay, runAt: either(body, "runAt", "run_at") }) },
      );
      return c.json(begunView(begun), "id" in begun ? 202 : 200);
    });
}

/** That they are dead letters is no condition here: a body that was forgotten must not mean all of them. */
function requireCondition<Filter extends object>(filter: Filter, all: boolean | null | undefined): Filter {
  if (Object.keys(filter).length > 0 || all === true) return filter;
  throw new MillraceError("FILTER_TOO_WIDE", "The filter has no condition, so it matches every dead letter.");
}
