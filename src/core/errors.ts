/**
 * Every way Millrace can fail, once: a stable code, the HTTP status it becomes, and the sentence that says what to do.
 *
 * The code is the API; the message may improve. `docs/reference/errors.md` has a heading for every code (a test compares both).
 */

interface CodeFacts {
  /** HTTP status when the code leaves through the API. */
  readonly status: number;
  /** For codes that end an attempt: is trying again worth anything? */
  readonly retryable?: boolean;
  /** What the reader should do, one sentence. */
  readonly action: string;
}

export const errorCodes = {
  // What the caller gave us
  OPTION_UNKNOWN: {
    status: 400,
    action: "Remove or correct the option; the message names the nearest one that exists.",
  },
  OPTION_INVALID: { status: 400, action: "Give a value of the kind the message asks for." },
  QUEUE_NAME_INVALID: { status: 400, action: "Use 1 to 128 letters, digits, dots, dashes, underscores or colons." },
  TASK_NAME_INVALID: { status: 400, action: "Use 1 to 128 letters, digits, dots, dashes, underscores or colons." },
  TASK_DUPLICATE: { status: 400, action: "Give each task of the app its own name." },
  BAD_REQUEST: { status: 400, action: "Correct the request; the message names the field." },
  BAD_PAYLOAD: {
    status: 422,
    retryable: false,
    action: "Correct the input to match the task's schema; trying the same input again cannot help.",
  },
  INPUT_NOT_STORABLE: {
    status: 422,
    action: "Pass plain JSON: no functions, bigints, cycles, NUL characters or lone surrogates.",
  },
  PAYLOAD_TOO_LARGE: {
    status: 413,
    action:
      "Reduce the payload, or raise the limit that the message names: MILLRACE_MAX_PAYLOAD_BYTES, or maxPayloadBytes of the queue's policy.",
  },
  ENQUEUE_RATE_EXCEEDED: {
    status: 429,
    action: "Wait as long as Retry-After says, smooth the producer, or raise the queue's maxEnqueuePerMinute.",
  },
  JOB_NOT_FOUND: { status: 404, action: "Check the id; the job may have been removed or cleaned." },
  FILTER_TOO_WIDE: {
    status: 400,
    action: "Narrow the filter, or say that all jobs are meant with `all: true`; a preview says how many that are.",
  },
  BULK_NOT_FOUND: { status: 404, action: "Check the id; `GET /api/bulk` lists the bulk operations." },
  JOB_STATE: { status: 409, action: "Look at the job's status first; the message says which status the action needs." },
  JOB_FAILED: {
    status: 409,
    action: "Read the error in the message, or ask `explain` about the job; retry or replay it.",
  },
  JOB_CANCELLED: { status: 409, action: "Somebody cancelled the job; the message says who and why." },
  WAIT_TIMEOUT: { status: 504, action: "Wait longer, or look at the job later: it goes on." },
  STOPPING: { status: 503, action: "Ask again after Retry-After, and another server where there is one." },
  EVENTS_TOO_SLOW: {
    status: 503,
    action: "Go on from the last place, take events faster, or ask for fewer of them with a filter.",
  },
  FLOW_INVALID: { status: 400, action: "Correct the flow; the message names the job." },
  FLOW_CYCLE: { status: 400, action: "Break the circle that the message names; nothing was written." },
  QUEUE_NOT_FOUND: { status: 404, action: "Check the name; a queue exists from its first job on." },
  TASK_NOT_FOUND: {
    status: 404,
    action: "Check the name; a task is known from its first job on, or once an app that defines it has started.",
  },
  TASK_RESERVED: {
    status: 400,
    action:
      "Begin a bulk operation with `POST /api/bulk`; maintenance comes by itself. Name tasks of your own otherwise.",
  },
  POLICY_NOT_FOUND: { status: 404, action: "Set a policy first; a queue without one has no limits." },
  SCHEDULE_INVALID: {
    status: 400,
    action: "Correct what the message names; `millrace schedules preview` shows when a pattern comes.",
  },
  SCHEDULE_DUPLICATE: { status: 400, action: "Give each schedule of the app its own name." },
  SCHEDULE_NOT_FOUND: { status: 404, action: "Check the name; `millrace schedules` lists them." },
  SCHEDULE_EXISTS: { status: 409, action: "Choose another name, or change the schedule that has it." },
  SCHEDULE_IN_CODE: {
    status: 409,
    action: "Pause it, or take it out of the app's code: it would come back with the next start.",
  },
  SCHEDULE_BUSY: {
    status: 409,
    action:
      "Wait for the run to end or cancel its job; or let runs overlap: overlap `allow` or `queue`, or more concurrency.",
  },
  WORKER_NOT_FOUND: {
    status: 404,
    action: "Check the id: `millrace workers` lists them; a stopped one takes no orders.",
  },
  SYSTEM_DRAINED: {
    status: 409,
    action: "Let workers claim again with `millrace drain resume`, or drain without waiting for empty queues.",
  },
  IDEMPOTENCY_KEY_REUSED: { status: 422, action: "Give every request its own key; only its repeats have the same." },
  IDEMPOTENCY_CONFLICT: {
    status: 409,
    action: "With Retry-After, ask again then; else look at what the first request has done, or use another key.",
  },
  ROUTE_NOT_FOUND: { status: 404, action: "Check method and path against the README." },
  METHOD_NOT_ALLOWED: { status: 405, action: "Use one of the methods in the Allow header." },
  REQUEST_TIMEOUT: { status: 408, action: "Send the whole request within 30 seconds, its headers within 10." },
  HEADERS_TOO_LARGE: { status: 431, action: "Send fewer or shorter headers, or a shorter path: 16 KiB in all." },
  EXPECTATION_FAILED: { status: 417, action: "Leave the header Expect out, or send `100-continue`." },
  UNSUPPORTED_MEDIA_TYPE: {
    status: 415,
    action: "Send the body as JSON, with the header Content-Type: application/json.",
  },
  UNAUTHORIZED: {
    status: 401,
    action: "Send `Authorization: Bearer <token>`; `millrace token create` makes one. People sign in at /auth/login.",
  },
  FORBIDDEN: {
    status: 403,
    action: "Ask an admin for a token or a role that may; the message says which role it takes.",
  },
  TOKEN_NOT_FOUND: { status: 404, action: "Check the id; `millrace token` lists the tokens." },
  SESSION_NOT_FOUND: { status: 404, action: "Check the id; `GET /api/sessions` lists those that this caller may end." },
  CSRF_REFUSED: {
    status: 403,
    action: "Send the request from a page of this server, with the header X-Millrace-CSRF: 1; programs use a token.",
  },
  SIGN_IN_INVALID: { status: 400, action: "Begin again at /auth/login, in the same browser." },
  SIGN_IN_REFUSED: {
    status: 403,
    action:
      "Try again, or ask an admin to let you in: OIDC_ROLE_CLAIM, OIDC_DEFAULT_ROLE or OPS_ADMIN_EMAILS give roles.",
  },
  SIGN_IN_NOT_CONFIGURED: { status: 404, action: "Set OIDC_ISSUER, OIDC_CLIENT_ID and MILLRACE_PUBLIC_URL." },
  SIGN_IN_UNAVAILABLE: {
    status: 503,
    action:
      "Try again; meanwhile tokens work. If it lasts, check OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET; the log says what is wrong.",
  },
  API_UNREACHABLE: { status: 503, action: "Check the url, and that `millrace up` runs there." },
  API_ANSWER_INVALID: {
    status: 502,
    action: "Check the url, and what stands between here and there, such as a proxy.",
  },
  TOO_MANY_REQUESTS: { status: 429, action: "Wait as long as Retry-After says; `RateLimit` says how much is left." },
  INTERNAL: { status: 500, action: "Read the server log under the request id; please report it." },
  // The ground we stand on
  DATABASE_UNREACHABLE: {
    status: 503,
    action: "Check that PostgreSQL runs and that DATABASE_URL is right; `millrace doctor` tests it.",
  },
  DATABASE_BEHIND: {
    status: 503,
    action: "Run `millrace migrate` with this version, or start with migrations enabled.",
  },
  DATABASE_NEWER: {
    status: 503,
    action: "Deploy the newer Millrace that migrated this database; the older one must not touch it.",
  },
  DATABASE_UNSUPPORTED: { status: 503, action: "Use PostgreSQL 14 or newer." },
  EMBEDDED_IN_USE: {
    status: 503,
    action:
      "Stop the other process that uses this data folder, choose another MILLRACE_DATA_DIR, or set DATABASE_URL for several processes.",
  },
  CONFIG_INVALID: {
    status: 500,
    action: "Correct the variable; `millrace config` lists all of them with what is allowed.",
  },
  APP_INVALID: { status: 500, action: "Point --app at a module whose default export is defineApp({ tasks }) ." },
  PORT_IN_USE: { status: 500, action: "Stop the other process, or choose another port in MILLRACE_PORTS." },
  NOT_READY: { status: 503, action: "Correct what the detail names; `checks` holds each measurement." },
  CLOSED: { status: 503, action: "Use the object before it is closed." },
  // How an attempt can end badly
  TIMEOUT: { status: 504, retryable: true, action: "Raise the task's timeout, or make the work smaller." },
  RATE_LIMIT: {
    status: 429,
    retryable: true,
    action: "Back off; the retry waits as long as the other side asked for.",
  },
  DEPENDENCY_DOWN: {
    status: 503,
    retryable: true,
    action: "Check the service the task calls; the job is tried again by itself.",
  },
  DB_DEADLOCK: {
    status: 503,
    retryable: true,
    action: "Trying again is fine; if it repeats, take locks in one order.",
  },
  SERIALIZATION: {
    status: 503,
    retryable: true,
    action: "Trying again is fine; if it repeats, make the transactions shorter.",
  },
  NOT_COMMITTED: {
    status: 500,
    retryable: true,
    action: "Let the transaction's error leave the task; the job is tried again.",
  },
  RESULT_NOT_STORABLE: {
    status: 422,
    retryable: false,
    action:
      "Return plain JSON within MILLRACE_MAX_PAYLOAD_BYTES, or nothing; the work was done, so look before you retry.",
  },
  STEP_CHANGED: {
    status: 409,
    retryable: false,
    action:
      "Deploy the code that began the run and retry the job, or replay it to begin anew; give changed tasks a new name while runs are under way.",
  },
  STEP_NOT_STORABLE: {
    status: 422,
    retryable: false,
    action: "Return plain JSON from the step, or nothing; its work was done, so look before you retry.",
  },
  STEP_INVALID: {
    status: 400,
    retryable: false,
    action: "Correct the task: the message names the step.",
  },
  PROGRESS_INVALID: {
    status: 422,
    retryable: false,
    action: "Give a number from 0 to 100, or an object of 4 096 bytes of JSON at most.",
  },
  STEP_SLEEPS: { status: 503, retryable: true, action: "Nothing: the run goes on when its time has come." },
  STEP_WAITS: {
    status: 503,
    retryable: true,
    action: "Emit the event that the message names, or wait until it times out.",
  },
  DEPENDENCY_FAILED: {
    status: 424,
    retryable: false,
    action:
      "Retry the job that failed: when it completes, this one goes on by itself. Or retry this one to run it without.",
  },
  NON_RETRYABLE: {
    status: 422,
    retryable: false,
    action: "Read the error message; fix the cause, then retry or replay the job.",
  },
  UNKNOWN_JOB_TYPE: {
    status: 422,
    retryable: false,
    action: "Deploy a worker whose app defines this task, then retry the job.",
  },
  CANCELLED: {
    status: 409,
    retryable: false,
    action: "Nothing: somebody cancelled the job; the message says who and why. Replay it if that was a mistake.",
  },
  WORKER_LOST: {
    status: 500,
    retryable: true,
    action: "Look at why the worker died (memory, deploy, kill); the job was queued again.",
  },
  WORKER_SHUTDOWN: {
    status: 503,
    retryable: true,
    action: "Nothing: the worker stopped and gave the job back without using an attempt.",
  },
  ISOLATE_CRASHED: {
    status: 500,
    retryable: true,
    action:
      "Read how the task's thread or process ended; look for process.exit, native modules and promises nobody awaits.",
  },
  MEMORY_LIMIT: {
    status: 500,
    retryable: true,
    action: "Make the work smaller, or raise isolate.memoryMb of the task.",
  },
  POISON: {
    status: 500,
    retryable: false,
    action: "The job killed its worker each time it ran alone; fix the task before retrying it.",
  },
  UNKNOWN: { status: 500, retryable: true, action: "Read the error message and the worker's log." },
} as const satisfies Record<string, CodeFacts>;

export type ErrorCode = keyof typeof errorCodes;

/** What to do about the error code of an attempt, one sentence, also for codes that come from the task. Null: there was no error. */
export function suggestedAction(code: string | null): string | null {
  if (code === null) return null;
  if (Object.hasOwn(errorCodes, code)) return errorCodes[code as ErrorCode].action;
  return `${code} comes from the task itself: read the error message, fix the cause, then retry the job if it was given up.`;
}

/** The one error class Millrace throws. `code` is stable; `action` says what to do. */
export class MillraceError extends Error {
  override readonly name: string = "MillraceError";
  readonly code: ErrorCode;
  /** When trying again can help, if that is known, in ms. */
  readonly retryAfterMs: number | undefined;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions & { retryAfterMs?: number }) {
    super(message, options);
    this.code = code;
    this.retryAfterMs = options?.retryAfterMs;
  }

  get action(): string {
    return errorCodes[this.code].action;
  }
}

/** Thrown by a task to say: do not try again. The job becomes a dead letter with reason `NON_RETRYABLE`. */
export class NonRetryableError extends Error {
  override readonly name: string = "NonRetryableError";
  readonly code: string;

  /** `options.code` is stored as the attempt's error code; default `NON_RETRYABLE`. */
  constructor(message: string, options?: ErrorOptions & { code?: string }) {
    super(message, options);
    this.code = options?.code ?? "NON_RETRYABLE";
  }
}

/** Thrown by a task when the other side says "not now": the retry waits at least `retryAfterMs` (milliseconds). */
export class RateLimitError extends Error {
  override readonly name: string = "RateLimitError";
  readonly code = "RATE_LIMIT";
  readonly retryAfterMs: number;

  constructor(message: string, options: ErrorOptions & { retryAfterMs: number }) {
    super(message, options);
    this.retryAfterMs = options.retryAfterMs;
  }
}
