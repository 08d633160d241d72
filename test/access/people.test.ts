/** What an identity provider says of people, and which of it counts. */
import { describe, expect, test } from "vitest";
import { claimedRole, personOf } from "../../src/access/claims.ts";
import { auditName, isListed, readEmails } from "../../src/access/people.ts";
import { readSafeOrigin, readSafeUrl } from "../../src/access/web-address.ts";
import { readConfig } from "../../src/app/config.ts";
import { signInSettings } from "../../src/app/sign-in.ts";

const person = { issuer: "https://id.example", sub: "1", email: "a@b.example", emailVerified: true, name: null };

describe("OPS_ADMIN_EMAILS", () => {
  test.each([
    ["Ada@Example.org, grace@example.org", ["ada@example.org", "grace@example.org"]],
    ['["ada@example.org"]', ["ada@example.org"]],
    ["[]", []],
  ])("%s", (text, expected) => {
    expect([...(readEmails(text) ?? ["wrong"])]).toEqual(expected);
  });

  test.each(["*@example.org", "ada", "ada@", "@example.org", "a@b@c", "a@b,,c@d", "a@b;c@d e", "[7]", "[", ""])(
    "%j is not allowed",
    (text) => expect(readEmails(text)).toBeUndefined(),
  );

  test("takes verified addresses, compared letter by letter but for A to Z", () => {
    const emails = readEmails("Kim@example.org") ?? new Set();
    const listed = (email: string | null, emailVerified = true): boolean =>
      isListed(emails, { ...person, email, emailVerified });
    expect([listed("kim@example.org"), listed("KIM@EXAMPLE.ORG")]).toEqual([true, true]);
    expect(listed("kim@example.org", false)).toBe(false);
    // The sign of the kelvin is a k in lower case.
    for (const other of [
      "\u212aim@example.org",
      "kim@example.org.evil.example",
      "kim+x@example.org",
      " kim@example.org",
      null,
    ])
      expect(listed(other)).toBe(false);
  });
});

test("the audit knows people by an address only when it is theirs", () => {
  expect(auditName(person)).toBe("a@b.example");
  expect(auditName({ ...person, emailVerified: false })).toBe("https://id.example#1");
  expect(auditName({ ...person, email: null })).toBe("https://id.example#1");
});

describe("the claim of the role", () => {
  test.each<[unknown, string, string | undefined]>([
    [{ role: "admin" }, "role", "admin"],
    [{ roles: ["viewer", "operator"] }, "roles", "operator"],
    [{ "https://example.com/roles": ["admin"] }, "https://example.com/roles", "admin"],
    [{ a: { b: ["operator"] } }, "a.b", "operator"],
    [{ role: "Admin" }, "role", undefined],
    [{ role: "viewer admin" }, "role", undefined],
    [{ role: { admin: true } }, "role", undefined],
    [{ role: [["admin"]] }, "role", undefined],
    [{ role: null }, "role", undefined],
    [{}, "constructor.name", undefined],
    [{}, "__proto__", undefined],
    [{ a: "admin" }, "a.b", undefined],
  ])("%j at %s", (claims, path, role) => {
    expect(claimedRole(claims as Record<string, unknown>, path)).toBe(role);
  });
});

describe("who it is", () => {
  const idToken = { iss: "https://id.example", sub: "1" };

  test("an address and whether it is verified come from one place", () => {
    const elsewhere = { email: "other@b.example", email_verified: true };
    expect(personOf({ ...idToken, email: "a@b.example" }, elsewhere)).toMatchObject({
      email: "a@b.example",
      emailVerified: false,
    });
    expect(personOf(idToken, elsewhere)).toMatchObject({ email: "other@b.example", emailVerified: true });
    expect(personOf({ ...idToken, email: 7 }, elsewhere)).toMatchObject({ email: "other@b.example" });
  });

  test.each([
    [true, true],
    ["true", true],
    [1, false],
    ["yes", false],
    [{}, false],
    [undefined, false],
  ])("email_verified %j: %j", (said, verified) => {
    expect(personOf({ ...idToken, email: "a@b.example", email_verified: said }, {})?.emailVerified).toBe(verified);
  });

  test("a name is the name, or else the user name", () => {
    expect(personOf({ ...idToken, name: " ", preferred_username: "ada" }, { name: "Ada" })?.name).toBe("ada");
    expect(personOf(idToken, { name: "Ada" })?.name).toBe("Ada");
    expect(personOf({ ...idToken, name: {} }, {})?.name).toBeNull();
  });
});

test("secrets travel over https, or stay on this machine", () => {
  for (const safe of [
    "https://id.example/realms/one",
    "http://localhost:8080",
    "http://127.0.0.1",
    "http://[::1]:9000/x",
  ])
    expect(readSafeUrl(safe)?.href).toContain(safe);
  for (const unsafe of [
    "http://id.example",
    "http://localhost.evil.example",
    "http://127.0.0.1.evil.example",
    "https://user:password@id.example",
    "https://id.example?x=1",
    "https://id.example#x",
    "ftp://localhost",
    "id.example",
    "",
  ])
    expect(readSafeUrl(unsafe)).toBeUndefined();
  expect(readSafeOrigin("https://millrace.example/")).toBe("https://millrace.example");
  expect(readSafeOrigin("http://LOCALHOST:3003")).toBe("http://localhost:3003");
  expect(readSafeOrigin("https://millrace.example/app")).toBeUndefined();
});

describe("the variables", () => {
  const env = {
    OIDC_ISSUER: "https://id.example",
    OIDC_CLIENT_ID: "millrace",
    OIDC_CLIENT_SECRET: "s3cret",
    MILLRACE_PUBLIC_URL: "https://millrace.example/",
  };

  test("together say how people sign in", () => {
    const more = { OPS_ADMIN_EMAILS: "Ada@b.example", OIDC_DEFAULT_ROLE: "none", SESSION_IDLE_MINUTES: "5" };
    expect(signInSettings(readConfig({ ...env, ...more }))).toEqual({
      issuer: "https://id.example",
      clientId: "millrace",
      clientSecret: "s3cret",
      origin: "https://millrace.example",
      roleClaim: undefined,
      defaultRole: null,
      admins: new Set(["ada@b.example"]),
      idleMs: 300_000,
      absoluteMs: 43_200_000,
    });
    expect(signInSettings(readConfig({ OPS_ADMIN_EMAILS: "ada@b.example" }))).toBeUndefined();
  });

  test.each(["OIDC_ISSUER", "OIDC_CLIENT_ID", "MILLRACE_PUBLIC_URL"] as const)("without %s are refused", (name) => {
    const { [name]: _, ...rest } = env;
    expect(() => signInSettings(readConfig(rest))).toThrow(
      expect.objectContaining({ code: "CONFIG_INVALID", message: expect.stringMatching(`^${name} is not set`) }),
    );
  });

  test.each([
    ["OIDC_ISSUER", "http://id.example"],
    ["MILLRACE_PUBLIC_URL", "https://millrace.example/app"],
    ["OPS_ADMIN_EMAILS", "*@b.example"],
    ["OIDC_DEFAULT_ROLE", "root"],
    ["SESSION_IDLE_MINUTES", "0"],
    ["SESSION_ABSOLUTE_HOURS", "721"],
  ])("%s=%s is not allowed", (name, value) => {
    expect(() => readConfig({ [name]: value })).toThrow(expect.objectContaining({ code: "CONFIG_INVALID" }));
  });
});
