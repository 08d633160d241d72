/** The rules of the house, kept by a test: which room may know which, what each may bring in, and how a file looks. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, test } from "vitest";

interface Room {
  /** A room sees itself and the floors below. Rooms on one floor do not know each other. */
  readonly floor: number;
  /** The npm packages it may import. Those under `types` only with `import type`. */
  readonly packages?: readonly string[];
  readonly types?: readonly string[];
  /** Beside the stairs: sees only these rooms, and no room sees it. */
  readonly annex?: readonly string[];
}

const rooms: Readonly<Record<string, Room>> = {
  client: { floor: 0 }, // for browsers too: it has nothing
  core: { floor: 0, types: ["@standard-schema/spec"] },
  db: { floor: 1, packages: ["pg", "@electric-sql/pglite"] },
  steps: { floor: 1 },
  telemetry: { floor: 1, packages: ["@opentelemetry/api"] },
  audit: { floor: 1.5 },
  isolate: { floor: 1.5, packages: ["tsx"] }, // its handlers have steps too
  jobs: { floor: 2, types: ["@standard-schema/spec"] },
  events: { floor: 3 },
  flows: { floor: 3 },
  schedules: { floor: 3, packages: ["croner"] },
  access: { floor: 3, packages: ["openid-client"] },
  callbacks: { floor: 3 },
  ingest: { floor: 3 },
  metrics: { floor: 3, packages: ["prom-client"] },
  cache: { floor: 3 },
  vault: { floor: 3 },
  retention: { floor: 3 },
  watch: { floor: 4 },
  app: { floor: 5, packages: ["zod"], types: ["@standard-schema/spec"] },
  bullmq: { floor: 5.2 },
  board: { floor: 5.5, packages: ["@bull-board/api", "@bull-board/hono", "hono", "@hono/node-server"] },
  http: { floor: 6, packages: ["hono", "@hono/node-server", "zod", "rate-limiter-flexible"] },
  console: { floor: 6, packages: ["hono"] },
  cli: { floor: 7, packages: ["citty", "pino", "pino-pretty", "@hono/node-server", "zod"] },
  adapters: {
    floor: 8,
    annex: ["core", "db", "jobs"],
    types: ["kysely", "drizzle-orm", "postgres", "@prisma/client", "pg"],
  },
  testing: {
    floor: 8,
    packages: ["@electric-sql/pglite"],
    annex: [
      "core",
      "db",
      "isolate",
      "steps",
      "telemetry",
      "jobs",
      "events",
      "flows",
      "schedules",
      "callbacks",
      "ingest",
      "cache",
      "vault",
      "retention",
      "watch",
      "app",
    ],
  },
};

const lineLimit = 400;

const root = resolve(import.meta.dirname, "..");
const src = join(root, "src");

interface SourceFile {
  /** Path below src/, with forward slashes. */
  readonly path: string;
  /** First folder; empty for the doors, the files directly in src/. */
  readonly room: string;
  readonly text: string;
}

const files: SourceFile[] = readdirSync(src, { recursive: true, encoding: "utf8" })
  .map((name) => name.replaceAll("\\", "/"))
  .filter((path) => /\.tsx?$/.test(path))
  .map((path) => ({
    path,
    room: path.includes("/") ? path.slice(0, path.indexOf("/")) : "",
    text: readFileSync(join(src, path), "utf8"),
  }));
const written = files.filter(({ path }) => !path.includes(".generated."));

// `import … from "x"`, `export … from "x"`, `import "x"`, and anywhere `import("x")`.
const statement = /^(?:import|export)(\s+type\b)?(?:[^;"'`]*\bfrom)?\s*["']([^"'\n]+)["']/gm;
const call = /\bimport(\s*)\(\s*["'`]([^"'`\n]+)["'`]/g;
const imports = written.flatMap((file) => {
  const text = withoutComments(file.text);
  return [...text.matchAll(statement), ...text.matchAll(call)].map(([, type = "", target = ""]) => ({
    from: file.path,
    room: file.room,
    typeOnly: type.trim() === "type",
    target,
  }));
});

describe("imports", () => {
  test("every folder of src/ is a room of the house", () => {
    expect([...new Set(files.map(({ room }) => room))].filter((room) => room !== "" && !rooms[room])).toEqual([]);
  });

  test("point down the house, never up or sideways", () => {
    const upward = imports
      .filter(({ target, room }) => target.startsWith(".") && room !== "")
      .map(({ from, room, target }) => ({
        from,
        room,
        to: relative(src, resolve(src, dirname(from), target)).replaceAll("\\", "/"),
      }))
      .filter(({ room, to }) => !maySee(room, to.includes("/") ? to.slice(0, to.indexOf("/")) : ""))
      .map(({ from, to }) => `${from} imports ${to}`);
    expect(upward).toEqual([]);
  });

  test("bring in an npm package only where the table allows it", () => {
    const stray = imports
      .filter(({ target }) => !target.startsWith(".") && !target.startsWith("node:"))
      .filter(({ room, typeOnly, target }) => {
        const name = target
          .split("/")
          .slice(0, target.startsWith("@") ? 2 : 1)
          .join("/");
        const { packages = [], types = [] } = rooms[room] ?? {};
        return !packages.includes(name) && !(typeOnly && types.includes(name));
      })
      .map(({ from, target }) => `${from} imports ${target}`);
    expect(stray).toEqual([]);
  });
});

test("the client runs where there is no Node", () => {
  const modules = imports.filter(({ room, target }) => room === "client" && !target.startsWith("."));
  expect(modules).toEqual([]);
  expect(
    files.filter(({ room, text }) => room === "client" && /\b(process|Buffer)\b/.test(withoutComments(text))),
  ).toEqual([]);
});

test("every table, and nothing else, has its bound in docs/reference/retention.md", () => {
  const schema = readdirSync(join(root, "migrations"))
    .filter((name) => name.endsWith(".sql"))
    .map((name) => readFileSync(join(root, "migrations", name), "utf8"))
    .join("\n");
  const tables = [...schema.matchAll(/^create table (?:if not exists )?millrace\.(\w+)/gm)].map(([, name]) => name);
  const rows = readFileSync(join(root, "docs/reference/retention.md"), "utf8").matchAll(/^\| (`[^|]*) \|/gm);
  const documented = [...rows].flatMap(([, cell = ""]) => [...cell.matchAll(/`(\w+)`/g)].map(([, name]) => name));
  expect(documented.toSorted()).toEqual(tables.toSorted());
});

describe("files", () => {
  test("the doors, directly in src/, hold exports and nothing else", () => {
    const doors = files.filter(({ room }) => room === "");
    const busy = doors.filter(
      ({ text }) =>
        withoutComments(text)
          .replaceAll(/export\s+(type\s+)?(\{[^}]*\}|\*(\s+as\s+\w+)?)\s+from\s+"[^"]+";/g, "")
          .trim() !== "",
    );
    expect(busy.map(({ path }) => path)).toEqual([]);
  });

  test(`no file is longer than one sitting, ${lineLimit} lines`, () => {
    const long = written
      .map(({ path, text }) => ({ path, lines: text.trimEnd().split("\n").length }))
      .filter(({ lines }) => lines > lineLimit);
    expect(long).toEqual([]);
  });

  test("SQL is written in db/, store.ts and *-store.ts only", () => {
    const stray = written.filter(
      ({ path, room, text }) =>
        room !== "db" && !/^(.*-)?store\.ts$/.test(basename(path)) && /\bsql(<[^`;]*>)?`/.test(withoutComments(text)),
    );
    expect(stray.map(({ path }) => path)).toEqual([]);
  });

  test("nothing is typed `any`, nothing is left to do", () => {
    const loose = written.filter(({ text }) =>
      /(:|\bas|<|\||&|=>|,)\s*any\b\s*([,;)>|&=[\]{}]|$)/m.test(withoutComments(text)),
    );
    expect(loose.map(({ path }) => path)).toEqual([]);
    const unfinished = written.filter(({ text }) => /\b(TODO|FIXME|XXX)\b/.test(text));
    expect(unfinished.map(({ path }) => path)).toEqual([]);
  });
});

const errorsFile = join(src, "core/errors.ts");

test.runIf(existsSync(errorsFile))(
  "every error code has its heading in docs/reference/errors.md, and every heading its code",
  async () => {
    const { errorCodes } = (await import(pathToFileURL(errorsFile).href)) as { errorCodes: Record<string, unknown> };
    const page = readFileSync(join(root, "docs/reference/errors.md"), "utf8");
    const headings = [...page.matchAll(/^#{2,} `?([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)`?\s*$/gm)].map(([, code]) => code);
    expect(new Set(headings)).toEqual(new Set(Object.keys(errorCodes)));
  },
);

function maySee(from: string, to: string): boolean {
  if (from === to) return true;
  const [here, there] = [rooms[from], rooms[to]];
  if (!here || !there || there.annex) return false;
  return here.annex ? here.annex.includes(to) : there.floor < here.floor;
}

/** Good enough for these rules: comments go, strings and templates stay as they are. */
function withoutComments(text: string): string {
  return text.replaceAll(
    /("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g,
    (_, kept: string | undefined) => kept ?? "",
  );
}
