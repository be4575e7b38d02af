/** What a run tells, as Python sends it to the train panel and the server to a run's document. */

export interface Said {
  kind: string;
  step: number;
  text: string;
  do: string;
}

/** One prompt and what was answered to it. */
export interface Asked {
  prompt: string;
  expected: string | null;
  /** The newest first. */
  answers: { step: number; text: string }[];
}
