import { expect, test } from "vitest";
import { migrate } from "../../src/db/migrate.ts";
import { describeSchema } from "../support/catalog.ts";
import { useDatabase } from "../support/engine.ts";

const file = useDatabase();

test("the schema that migrations make is the one on file", async () => {
  const db = await file.openDoor();
  await migrate(db);
  // After a migration that is meant: npx vitest run test/db/schema.test.ts -u, and read the difference.
  await expect(await describeSchema(db)).toMatchFileSnapshot("schema.txt");
  await db.close();
});
