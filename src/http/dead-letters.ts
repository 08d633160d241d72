/** The operations on dead letters: one by one, counted by what they have in common, and what is done to many of them. */
import { z } from "zod";
import { type BulkFilter, excludes } from "../app/bulk.ts";
import type { Millrace } from "../app/millrace.ts";
import type { Duration } from "../core/duration.ts";
import { MillraceError } from "../core/errors.ts";
import { deadLetterGroups } from "../jobs/dead-letters-store.ts";
import { answerBegun, begunAnswers, deadLetterFilter, filterOf, pace } from "./bulk-view.ts";
import { type Endpoint, type Endpoints, endpoint } from "./endpoint.ts";
import type { ApiContext } from "./env.ts";
import { nameErrors } from "./job-fields.ts";
import { jobPageSchema, pageOf } from "./job-view.ts";
import { placement } from "./orders.ts";
import { either, given } from "./read.ts";
import { signed } from "./signature.ts";
import { count, text, time } from "./wire.ts";

const group = z.enum(deadLetterGroups);
const listQuery = z.strictObject({
  group: group.optional().describe("Count them by this, instead of listing them."),
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

const groupsSchema = z
  .object({
    group,
    groups: z.array(z.object({ value: text, count, oldest: time, newest: time })).describe("The largest first."),
    total: count,
  })
  .meta({ id: "DeadLetterGroups" });

/** A purge that says no age spares what failed today: somebody may still be looking at it. */
const purgeOlderThan: Duration = "24h";

export function deadLetterEndpoints(mill: Millrace): Endpoints {
  return [
    endpoint("Dead letters", "GET /dlq", {
      summary: "Jobs that were given up, one by one, or with `group` counted by what they have in common",
      role: "viewer",
      query: listQuery,
      answers: { 200: z.union([jobPageSchema, groupsSchema]) },
      errors: nameErrors,
      handle: async ({ query }) => (query.group === undefined ? list(mill, query) : groupsOf(mill, query.group, query)),
    }),
    begin(mill, "retry", "POST /dlq/retry", "Run those again that match: the same jobs, one more attempt each"),
    begin(
      mill,
      "remove",
      "POST /dlq/purge",
      "Remove those that match and, unless `older_than` says otherwise, failed a day ago",
    ),
    endpoint("Dead letters", "POST /dlq/replay", {
      summary: "Make new jobs like those that match",
      role: "operator",
      body: replayBody,
      bodyOptional: true,
      answers: begunAnswers,
      errors: ["FILTER_TOO_WIDE", "QUEUE_NOT_FOUND", "TASK_NOT_FOUND", ...nameErrors],
      async handle({ c, body: { to_queue: queue, ...body } }) {
        const { priority, delay } = body;
        const filter = requireCondition(filterOf(body), body.all);
        const changes = given({ queue, priority, delay, runAt: either(body, "runAt", "run_at") });
        const begun = await mill.bulk("replay", { ...filter, status: "failed" }, { ...optionsOf(c, body), ...changes });
        return answerBegun(c, begun);
      },
    }),
  ];
}

function list(mill: Millrace, query: z.infer<typeof listQuery>) {
  const { queue, tag, error_code: errorCode, reason, limit } = query;
  const task = either(query, "task", "job_type");
  const after = either(query, "after", "cursor");
  return mill
    .leanJobs({ ...given({ queue, task, tag, errorCode, reason, limit, after }), status: "failed" })
    .then(pageOf);
}

async function groupsOf(mill: Millrace, by: z.infer<typeof group>, query: z.infer<typeof listQuery>) {
  const { queue, tag, error_code: errorCode, reason, limit, after, cursor } = query;
  if (tag !== undefined || limit !== undefined || after !== undefined || cursor !== undefined)
    throw new MillraceError("BAD_REQUEST", "With group there are no tag, limit and after: all groups are told.");
  const task = either(query, "task", "job_type");
  const groups = await mill.deadLetters(by, given({ queue, task, errorCode, reason }));
  return { group: by, groups, total: groups.reduce((sum, one) => sum + one.count, 0) };
}

function begin(mill: Millrace, action: "retry" | "remove", route: `POST /${string}`, summary: string): Endpoint {
  return endpoint("Dead letters", route, {
    summary,
    role: "operator",
    body: actBody,
    bodyOptional: true,
    answers: begunAnswers,
    errors: ["FILTER_TOO_WIDE", "QUEUE_NOT_FOUND", "TASK_NOT_FOUND", ...nameErrors],
    async handle({ c, body }) {
      const filter = requireCondition(filterOf(body), body.all);
      const aged = action === "remove" ? { olderThan: purgeOlderThan, ...filter } : filter;
      const begun = await mill.bulk(action, { ...aged, status: "failed" }, optionsOf(c, body));
      return answerBegun(c, begun);
    },
  });
}

function optionsOf(c: ApiContext, { preview, all, per_second: perSecond, by }: z.infer<typeof actBody>) {
  return { ...given({ dryRun: preview, all, perSecond }), ...signed(c, { by }) };
}

/** That they are dead letters is no condition here: a body that was forgotten must not mean all of them. */
function requireCondition(filter: BulkFilter, all: boolean | null | undefined): BulkFilter {
  if (excludes(filter, ["failed"]) || all === true) return filter;
  throw new MillraceError(
    "FILTER_TOO_WIDE",
    "The filter has no condition that leaves one out, so it matches every dead letter.",
  );
}
