/**
 * Bull Board over Millrace's queues, as one function from request to response. It shows the queues that are there when it is asked, in
 * adapters that share one look at them, and nothing on its pages comes from elsewhere.
 */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { createBullBoard } from "@bull-board/api";
import type { ControllerHandlerReturnType } from "@bull-board/api/typings/app";
import { HonoAdapter } from "@bull-board/hono";
import { type ServeStaticOptions, serveStatic } from "@hono/node-server/serve-static";
import { type Env, Hono } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { Millrace } from "../app/millrace.ts";
import { MillraceError, errorCodes } from "../core/errors.ts";
import { isTransient } from "../db/database.ts";
import { asked } from "./asker.ts";
import { Look } from "./look.ts";
import { QueueAdapter } from "./queue-adapter.ts";
import { readQueues } from "./store.ts";

/** `name`: who asks; null for those without one. */
export type Board = (request: Request, name: string | null) => Promise<Response>;

/**
 * Scripts, pictures and calls are the server's own. Styles are also written into the page, by attributes and by the editor of jobs' data,
 * hence `unsafe-inline`.
 */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self'",
  "connect-src 'self'",
  "base-uri 'self'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** The page asks another site for a font; it has others. */
const foreignFonts = /<link[^>]*fonts\.googleapis\.com[^>]*>/g;

export interface BoardOptions {
  /** Where it is mounted, without a slash at the end. */
  readonly path: string;
  /** In its menu. */
  readonly links: readonly { readonly text: string; readonly url: string }[];
  /** It offers nothing that changes something. */
  readonly readOnly: boolean;
  /** Hears of what nobody expected. */
  readonly failed: (error: Error) => void;
}

export function createBoard(mill: Millrace, { path, links, readOnly, failed }: BoardOptions): Board {
  const uiFolder = dirname(createRequire(import.meta.url).resolve("@bull-board/ui/package.json"));
  // Its own root is relative to the working folder of the moment.
  const server = new HonoAdapter((options?: ServeStaticOptions<Env>) =>
    serveStatic({ ...options, root: join(uiFolder, "dist/static") }),
  );
  server.setBasePath(path);
  const shown = createBullBoard({
    queues: [],
    serverAdapter: server,
    options: { uiBasePath: uiFolder, uiConfig: { boardTitle: "Millrace", hideDocsLink: true, miscLinks: [...links] } },
  });
  server.setErrorHandler((error) => refused(error, failed));

  let adapters: readonly QueueAdapter[] = [];
  const app = new Hono()
    .basePath(path)
    .use("/api/*", async (_, next) => {
      const look = new Look(mill);
      adapters = (await readQueues(mill.db)).map((queue) => new QueueAdapter(mill, look, queue, readOnly));
      shown.replaceQueues([...adapters]);
      await next();
    })
    // Instead of Bull Board's own, which reads every failed job and retries them one by one.
    .put("/api/queues/:queue/retry/failed", async (c, next) => {
      const adapter = adapters.find((one) => one.getName() === c.req.param("queue"));
      if (adapter === undefined) return next();
      return c.json({ retried: await adapter.retryAll(), skipped: 0 });
    })
    .route("/", server.registerPlugin());
  app.onError((error, c) => {
    const { status, body } = refused(error, failed);
    return c.json(body as object, status as ContentfulStatusCode);
  });

  return async (request, name) => {
    const answer = await asked(name, async () => app.fetch(request));
    const isPage = answer.headers.get("Content-Type")?.startsWith("text/html") ?? false;
    const body = isPage ? (await answer.text()).replaceAll(foreignFonts, "") : answer.body;
    const response = new Response(body, answer);
    response.headers.set("Content-Security-Policy", policy);
    response.headers.set("X-Content-Type-Options", "nosniff");
    response.headers.set("Referrer-Policy", "no-referrer");
    return response;
  };
}

/** In Bull Board's shape: its page shows both texts. What nobody expected is told to the log only. */
function refused(error: Error, failed: (error: Error) => void): Required<ControllerHandlerReturnType<object>> {
  const { status, title, message } = read(error);
  if (status === errorCodes.INTERNAL.status) failed(error);
  return { status: status as Required<ControllerHandlerReturnType>["status"], body: { error: title, message } };
}

function read(error: Error): { status: number; title: string; message: string } {
  if (error instanceof MillraceError) {
    const { status, action } = errorCodes[error.code];
    return { status, title: status < 500 ? "Not done" : "Failed", message: `${error.message} ${action}` };
  }
  const code = isTransient(error) ? "DATABASE_UNREACHABLE" : "INTERNAL";
  const { status, action } = errorCodes[code];
  return { status, title: "Failed", message: action };
}
