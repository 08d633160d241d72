/** What every job of every contender carries: about a hundred bytes. */
export const payload = (at = 0) => ({
  sceneId: 12345,
  title: "a scene of moderate length",
  tags: ["a", "b", "c"],
  n: 42,
  at,
});
