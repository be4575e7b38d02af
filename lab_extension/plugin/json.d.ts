/** The guided notebook, put beside the compiled plugin by build/notebook.mjs. */
declare module '*/guided.json' {
  const notebook: { cells: unknown[]; metadata: object; nbformat: number; nbformat_minor: number };
  export default notebook;
}
