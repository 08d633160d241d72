/** People, as an identity provider tells of them. */
import { readEntries } from "./entries.ts";

export interface Person {
  readonly issuer: string;
  /** The issuer's own name for somebody, which never changes: the two together are who it is. */
  readonly sub: string;
  readonly email: string | null;
  /** Whether the issuer says that the address is theirs. Otherwise it counts for nothing. */
  readonly emailVerified: boolean;
  readonly name: string | null;
}

/** E-mail addresses as `foldEmail` makes them. */
export type Emails = ReadonlySet<string>;

/** A to Z only: other letters that look alike, or are alike in lower case, are others. */
const foldEmail = (email: string): string => email.replaceAll(/[A-Z]/g, (letter) => letter.toLowerCase());

/** Commas or a JSON array. Undefined when an entry is no address: there are no patterns. */
export function readEmails(text: string): Emails | undefined {
  const entries = readEntries(text);
  return entries?.every((entry) => /^[^\s@*]+@[^\s@*]+$/.test(entry)) ? new Set(entries.map(foldEmail)) : undefined;
}

export const isListed = (emails: Emails, { email, emailVerified }: Person): boolean =>
  emailVerified && email !== null && emails.has(foldEmail(email));

/** For the audit: an e-mail address that is verified, or what the issuer calls them. Nobody can choose another's. */
export const auditName = ({ issuer, sub, email, emailVerified }: Person): string =>
  emailVerified && email !== null ? email : `${issuer}#${sub}`;
