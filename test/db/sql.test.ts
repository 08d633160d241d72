import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Dialect, Sql, arrayLiteral, join, quoteIdent, sql, textArrayLiteral } from "../../src/db/sql.ts";

const dialect = new Dialect("millrace", false);

/** Any composition of templates up to a few levels deep; values are marked so that they can be told from text. */
const { template } = fc.letrec<{ template: Sql; hole: unknown }>((tie) => ({
  template: fc
    .array(fc.constantFrom("select ", " and ", " = ", ", ", "(", ")", " from millrace.jobs ", ""), {
      minLength: 1,
      maxLength: 6,
    })
    .chain((chunks) =>
      fc
        .array(tie("hole"), { minLength: chunks.length - 1, maxLength: chunks.length - 1 })
        .map((holes) => new Sql(chunks, holes)),
    ),
  hole: fc.oneof(
    { maxDepth: 3 },
    fc.string().map((text) => `VALUE<${text}>`),
    tie("template"),
  ),
}));

/** The text with its placeholders replaced by what stands in them, and, done naively, what it should be. */
const filled = (text: string, values: unknown[]): string =>
  text.replaceAll(/\$(\d+)/g, (_, n: string) => JSON.stringify(values[Number(n) - 1]));
const naive = (part: Sql): string =>
  part.strings.reduce((text, chunk, i) => {
    const value = part.values[i - 1];
    return text + (value instanceof Sql ? naive(value) : JSON.stringify(value)) + chunk;
  });

describe("a statement", () => {
  test("has every value in its place by number, and none in its text", () => {
    fc.assert(
      fc.property(template, (query) => {
        const { text, values } = dialect.statement(query);
        expect(text).not.toContain("VALUE<");
        expect(filled(text, values)).toBe(naive(query));
        expect([...text.matchAll(/\$(\d+)/g)].map(([, n]) => Number(n))).toEqual(values.map((_, i) => i + 1));
      }),
    );
  });

  test("is the same text every time its template is used, whatever the values", () => {
    const find = (id: unknown): Sql => sql`select ${id}, ${"x"}`;
    const prepared = new Dialect("millrace", true);
    const first = prepared.statement(find(1));
    expect(prepared.statement(find("'; drop table jobs"))).toEqual({ ...first, values: ["'; drop table jobs", "x"] });
    expect(first).toMatchObject({
      text: "select $1, $2",
      values: [1, "x"],
      name: expect.stringMatching(/^millrace_\d+$/),
    });
  });

  test("has one name per text, however it is composed, and none if names are not wanted", () => {
    const prepared = new Dialect("millrace", true);
    const parts = [sql`a`, sql`b = ${1}`, sql`c`];
    const compose = fc.array(fc.nat(2), { maxLength: 4 }).map((choice) => {
      const chosen = choice.map((n) => parts[n] as Sql);
      return sql`select ${join(chosen, sql`, `)} from ${sql`d where e = ${choice.length}`}`;
    });
    const textOf = new Map<string, string>();
    const nameOf = new Map<string, string>();
    fc.assert(
      fc.property(compose, (query) => {
        const { name = "", text } = prepared.statement(query);
        expect(textOf.get(name) ?? text).toBe(text);
        // One text may have two names where it is composed in two ways; one name never has two texts.
        textOf.set(name, text);
        nameOf.set(text, name);
      }),
    );
    expect(nameOf.size).toBeGreaterThan(5);
    expect(dialect.statement(sql`select 1`).name).toBeUndefined();
  });

  test("keeps a value that is not a template apart from one that is: a text that looks like SQL stays a value", () => {
    const prepared = new Dialect("millrace", true);
    const find = (part: unknown): Sql => sql`select ${part}`;
    expect(prepared.statement(find(sql`now()`))).toMatchObject({ text: "select now()", values: [] });
    expect(prepared.statement(find("now()"))).toMatchObject({ text: "select $1", values: ["now()"] });
    expect(prepared.statement(find(sql`${"x"}`))).toMatchObject({ text: "select $1", values: ["x"] });
  });

  test("never shares its name with that of another schema, which a pooled connection could mix up", () => {
    const query = sql`select id from millrace.jobs`;
    const [a, b] = [new Dialect("one", true).statement(query), new Dialect("two", true).statement(query)];
    expect(a.text).toBe('select id from "one".jobs');
    expect(b.text).toBe('select id from "two".jobs');
    expect(a.name).not.toBe(b.name);
  });
});

describe("the schema", () => {
  test("takes the place of `millrace.` in text and leaves values and other words alone", () => {
    const other = new Dialect("My_Schema", false);
    const { text, values } = other.statement(
      sql`insert into millrace.jobs select * from xmillrace.a, millraces.b, ${sql`millrace.leases`} where name = ${"millrace.jobs"}`,
    );
    expect(text).toBe(
      'insert into "My_Schema".jobs select * from xmillrace.a, millraces.b, "My_Schema".leases where name = $1',
    );
    expect(values).toEqual(["millrace.jobs"]);
  });

  test("is left as written when it is the default one", () => {
    expect(dialect.statement(sql`select * from millrace.jobs`).text).toBe("select * from millrace.jobs");
  });
});

test("join puts a separator between parts and numbers their values in order", () => {
  const where = join([sql`a = ${1}`, sql`b = ${2}`, sql`c = ${3}`], sql` and `);
  expect(dialect.statement(sql`select ${0} where ${where}`)).toEqual({
    text: "select $1 where a = $2 and b = $3 and c = $4",
    values: [0, 1, 2, 3],
  });
  expect(dialect.statement(sql`x${join([], sql`, `)}y`).text).toBe("xy");
});

test("an identifier is quoted, and quotes in it doubled", () => {
  expect(quoteIdent("Mill_1")).toBe('"Mill_1"');
  expect(quoteIdent('a"b')).toBe('"a""b"');
});

test("an array literal is braces and commas, with NULL for null", () => {
  expect(arrayLiteral([1, -2, true, null, "018f0000-0000-7000-8000-000000000000"])).toBe(
    "{1,-2,true,NULL,018f0000-0000-7000-8000-000000000000}",
  );
  expect(arrayLiteral([])).toBe("{}");
  expect(textArrayLiteral([])).toBe("{}");
  expect(textArrayLiteral(["a", null, "NULL", '"', "\\"])).toBe('{"a",NULL,"NULL","\\"","\\\\"}');
});
