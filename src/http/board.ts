/** Bull Board at `/admin/queues`, behind the gate: who may look, who may change. It is loaded when somebody first asks for it. */
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { reaches } from "../access/roles.ts";
import type { Millrace } from "../app/millrace.ts";
import { MillraceError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";
import type { Board } from "../board/board.ts";
import { foreignPage } from "./access.ts";
import type { ApiContext, ApiEnv } from "./env.ts";
import { requireRole } from "./gate.ts";
import { problem } from "./problem.ts";
import type { RateLimiter } from "./rate-limits.ts";
import { bodyBytes } from "./read.ts";

export const boardPath = "/admin/queues";
const links = [
  { text: "Millrace", url: "/" },
  { text: "Sign out", url: "/auth/logout" },
];
const looking = ["GET"];
const changing = ["POST", "PUT", "PATCH"];

/** For the audit. What it was about is in the address: `…/queues/mail/pause`. */
export const boardChanges = changing.map((method) => `${method} ${boardPath}/*`);

export function boardRoutes(mill: Millrace, limiter: RateLimiter, log: Log): Hono<ApiEnv> {
  const boards = new Map<boolean, Promise<Board>>();
  const load = (readOnly: boolean): Promise<Board> => {
    const failed = (err: Error): void => log.error({ err }, "board.failed");
    const board =
      boards.get(readOnly) ??
      import("../board/board.ts").then(({ createBoard }) =>
        createBoard(mill, { path: boardPath, links, readOnly, failed }),
      );
    boards.set(readOnly, board);
    return board;
  };
  const maxSize = bodyBytes(mill.maxPayloadBytes);
  const tooLarge = (c: ApiContext): Response =>
    problem(c, "PAYLOAD_TOO_LARGE", `The body is larger than ${maxSize} bytes.`);

  return new Hono<ApiEnv>()
    .get(`${boardPath}/`, (c) => c.redirect(boardPath))
    .use(`${boardPath}/*`, bodyLimit({ maxSize, onError: tooLarge }))
    .on([...looking, ...changing], `${boardPath}/*`, async (c) => {
      if (/%00|\0/.test(c.req.url))
        throw new MillraceError("BAD_REQUEST", "Expected an address without NUL characters.");
      const looks = c.req.method === "GET" || c.req.method === "HEAD";
      if (!looks || c.req.header("sec-fetch-mode") !== "navigate") refuseForeignPages(c);
      // Files of the page are many, and cost nothing.
      if (!looks || c.req.path.startsWith(`${boardPath}/api/`)) await limiter.count(c, looks ? "api" : "ops");
      requireRole(c, looks ? "viewer" : "operator");
      const caller = c.get("caller");
      const board = await load(caller === undefined || !reaches(caller.role, "operator"));
      const answer = await board(c.req.raw, caller?.name ?? null);
      return c.newResponse(answer.body, answer);
    });
}

/** For all but links, which may be followed from anywhere: nothing else may be asked for by pages of others, with whosever credentials. */
function refuseForeignPages(c: ApiContext): void {
  const why = foreignPage(c);
  if (why !== undefined) throw new MillraceError("FORBIDDEN", `Bull Board answers its own page only, and ${why}.`);
}
