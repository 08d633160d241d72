/**
 * What a delivery says, in one sentence for the activity feed of its repository.
 *
 * GitHub sends sixty kinds of events, each with hundreds of fields. Each entry below names the few its sentence is made of, and zod
 * checks those and nothing else, so that a field GitHub adds tomorrow breaks nothing.
 */
import { NonRetryableError } from "millrace";
import { z } from "zod";

export interface Activity {
  readonly repository: string;
  readonly actor: string;
  readonly sentence: string;
}

const text = z.string();
const numbered = z.object({ number: z.int(), title: text });
const check = z.object({ name: text, status: text, conclusion: text.nullable() });

/** Every line of the feed says who did it, and where. */
const envelope = z.object({ sender: z.object({ login: text }), repository: z.object({ full_name: text }) });

function told<Shape extends z.ZodRawShape>(
  shape: Shape,
  sentence: (payload: z.infer<z.ZodObject<Shape>>) => string,
): (payload: unknown) => string {
  const schema = z.object(shape);
  return (payload) => sentence(schema.parse(payload));
}

const sentences: Readonly<Record<string, (payload: unknown) => string>> = {
  // Talk
  issues: told({ action: text, issue: numbered }, ({ action, issue }) => `${words(action)} issue ${title(issue)}`),
  issue_comment: told(
    { action: text, issue: numbered, comment: z.object({ body: text }) },
    ({ action, issue, comment }) => `${action} a comment on ${title(issue)}: ${quote(comment.body)}`,
  ),
  discussion: told(
    { action: text, discussion: numbered },
    ({ action, discussion }) => `${words(action)} discussion ${title(discussion)}`,
  ),
  commit_comment: told(
    { comment: z.object({ body: text, commit_id: text }) },
    ({ comment }) => `commented on ${comment.commit_id.slice(0, 7)}: ${quote(comment.body)}`,
  ),
  // Code
  pull_request: told(
    { action: text, pull_request: numbered.extend({ merged: z.boolean(), changed_files: z.int() }) },
    ({ action, pull_request: pull }) =>
      `${pull.merged && action === "closed" ? "merged" : words(action)} pull request ${title(pull)}, ${count(pull.changed_files, "file")}`,
  ),
  pull_request_review: told(
    { review: z.object({ state: text }), pull_request: numbered },
    ({ review, pull_request: pull }) => `reviewed pull request ${title(pull)}: ${words(review.state)}`,
  ),
  push: told(
    { ref: text, deleted: z.boolean(), forced: z.boolean(), commits: z.array(z.object({ message: text })) },
    ({ ref, deleted, forced, commits }) =>
      deleted ? `deleted ${ref}` : `${forced ? "force-pushed" : "pushed"} ${count(commits.length, "commit")} to ${ref}`,
  ),
  create: told({ ref_type: text, ref: text }, ({ ref_type, ref }) => `created ${ref_type} ${ref}`),
  delete: told({ ref_type: text, ref: text }, ({ ref_type, ref }) => `deleted ${ref_type} ${ref}`),
  release: told(
    { action: text, release: z.object({ tag_name: text }) },
    ({ action, release }) => `${action} release ${release.tag_name}`,
  ),
  fork: told({ forkee: z.object({ full_name: text }) }, ({ forkee }) => `forked it to ${forkee.full_name}`),
  // Machines
  check_run: told({ check_run: check }, ({ check_run }) => `check ${result(check_run)}`),
  workflow_run: told({ workflow_run: check }, ({ workflow_run }) => `workflow ${result(workflow_run)}`),
  workflow_job: told({ workflow_job: check }, ({ workflow_job }) => `job ${result(workflow_job)}`),
  status: told({ context: text, state: text }, ({ context, state }) => `status ${context}: ${state}`),
  deployment_status: told(
    { deployment_status: z.object({ state: text, environment: text }) },
    ({ deployment_status: { state, environment } }) => `deployment to ${environment}: ${words(state)}`,
  ),
};

/** All other events have their name and, mostly, an action. */
const anyOther = (event: string): ((payload: unknown) => string) =>
  told({ action: text.optional() }, ({ action }) => words(action === undefined ? event : `${event} ${action}`));

/** Throws `BAD_PAYLOAD`, which is not tried again: the payload will not be any better the next time. */
export function describeDelivery(event: string, payload: unknown): Activity {
  try {
    const { sender, repository } = envelope.parse(payload);
    const sentence = (sentences[event] ?? anyOther(event))(payload);
    return { repository: repository.full_name, actor: sender.login, sentence };
  } catch (error) {
    if (!(error instanceof z.ZodError)) throw error;
    const issues = error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`).join("; ");
    throw new NonRetryableError(`A delivery of "${event}" does not say enough for the feed: ${issues}`, {
      code: "BAD_PAYLOAD",
      cause: error,
    });
  }
}

const words = (name: string): string => name.replaceAll("_", " ");
const quote = (body: string): string => `"${body.length > 60 ? `${body.slice(0, 59)}…` : body}"`;
const title = (thing: z.infer<typeof numbered>): string => `#${thing.number} ${quote(thing.title)}`;
const count = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? "" : "s"}`;
const result = ({ name, status, conclusion }: z.infer<typeof check>): string =>
  `${name === "" ? "(unnamed)" : quote(name)}: ${words(conclusion ?? status)}`;
