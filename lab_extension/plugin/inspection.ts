/** Views of model files and adapter folders, which are never transferred: the server reads their headers. */

import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Dialog, ICommandPalette, showDialog, WidgetTracker } from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import { ABCWidgetFactory, type DocumentRegistry, DocumentWidget, TextModelFactory } from '@jupyterlab/docregistry';
import { FileDialog, IDefaultFileBrowser, IFileBrowserFactory } from '@jupyterlab/filebrowser';
import type { Contents } from '@jupyterlab/services';
import { ITranslator, nullTranslator, type TranslationBundle } from '@jupyterlab/translation';
import type { Inspection } from '../ui/inspection.ts';
import { AdapterFolders } from './adapter_folders.ts';
import { Api } from './api.ts';
import { inspectIcon } from './icon.ts';
import { InspectionView } from './inspection_view.ts';
import { selectedItem } from './selection.ts';

export const INSPECT = 'tunebook:inspect';
const FACTORY = 'Model Inspector';
const MODEL = 'tunebook-no-content';
const ADAPTER = 'adapter_config.json';
const FILE = /\.(gguf|safetensors)$|^adapter_config\.json$/i;

/** A document of which nothing is loaded: a model may have tens of gigabytes. */
class NoContentFactory extends TextModelFactory {
  constructor() {
    super(false);
  }

  override get name(): string {
    return MODEL;
  }

  override get fileFormat(): Contents.FileFormat {
    return null as unknown as Contents.FileFormat; // asks the contents for `content=0`
  }
}

class InspectionFactory extends ABCWidgetFactory<DocumentWidget<InspectionView>> {
  constructor(
    options: DocumentRegistry.IWidgetFactoryOptions,
    private readonly view: (path: string) => InspectionView
  ) {
    super(options);
  }

  protected createNewWidget(context: DocumentRegistry.Context): DocumentWidget<InspectionView> {
    const content = this.view(subject(context.path));
    content.title.icon = inspectIcon;
    const again = (): void => void content.read(subject(context.path));
    context.fileChanged.connect(again);
    context.pathChanged.connect(again);
    return new DocumentWidget({ content, context }); // its label is the file's name: another one would rename the file
  }
}

/** What is inspected by way of a file: of an adapter its whole folder, else the file. */
function subject(path: string): string {
  return PathExt.basename(path) === ADAPTER ? PathExt.dirname(path) : path;
}

function addDocuments(app: JupyterFrontEnd, view: (path: string) => InspectionView, restorer: ILayoutRestorer | null, trans: TranslationBundle): void {
  const registry = app.docRegistry;
  const binary = [
    { name: 'tunebook-gguf', displayName: trans.__('GGUF model'), extensions: ['.gguf'] },
    { name: 'tunebook-safetensors', displayName: trans.__('Safetensors weights'), extensions: ['.safetensors'] }
  ];
  for (const type of binary) {
    registry.addFileType({ ...type, mimeTypes: ['application/octet-stream'], fileFormat: 'base64', contentType: 'file', icon: inspectIcon });
  }
  const adapter = { name: 'tunebook-adapter', displayName: trans.__('Adapter'), pattern: '^adapter_config\\.json$' };
  registry.addFileType({ ...adapter, extensions: [], mimeTypes: ['application/json'], fileFormat: 'text', contentType: 'file', icon: inspectIcon });
  registry.addModelFactory(new NoContentFactory());
  const names = binary.map(type => type.name);
  const factory = new InspectionFactory(
    { name: FACTORY, label: trans.__('Model Inspector'), modelName: MODEL, fileTypes: [...names, adapter.name], defaultFor: names, readOnly: true },
    view
  );
  const tracker = new WidgetTracker<DocumentWidget<InspectionView>>({ namespace: 'tunebook-inspected-files' });
  factory.widgetCreated.connect((_, widget) => {
    void tracker.add(widget);
    widget.context.pathChanged.connect(() => void tracker.save(widget));
  });
  registry.addWidgetFactory(factory);
  void restorer?.restore(tracker, {
    command: 'docmanager:open',
    args: widget => ({ path: widget.context.path, factory: FACTORY }),
    name: widget => widget.context.path
  });
}

async function askForFile(browser: IDefaultFileBrowser, translator: ITranslator, trans: TranslationBundle): Promise<Contents.IModel | null> {
  const asked = await FileDialog.getOpenFiles({
    manager: browser.model.manager,
    translator,
    defaultPath: browser.model.path,
    title: trans.__('Inspect a model file'),
    label: trans.__('Choose a .gguf or .safetensors file, or open an adapter’s folder'),
    filter: item => (item.type === 'directory' || FILE.test(item.name) ? {} : null)
  });
  return (asked.button.accept && asked.value?.[0]) || null;
}

export const inspection: JupyterFrontEndPlugin<void> = {
  id: 'tunebook:inspection',
  description: 'Views of model files and adapter folders.',
  autoStart: true,
  optional: [ICommandPalette, IDefaultFileBrowser, IFileBrowserFactory, ILayoutRestorer, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    palette: ICommandPalette | null,
    browser: IDefaultFileBrowser | null,
    factory: IFileBrowserFactory | null,
    restorer: ILayoutRestorer | null,
    translator: ITranslator | null
  ) => {
    const known = translator ?? nullTranslator;
    const trans = known.load('tunebook');
    const api = new Api(app.serviceManager.serverSettings, trans);
    const contents = app.serviceManager.contents;
    const inspect = (path: string): Promise<Inspection> => api.inspect(contents.localPath(path));
    const view = (path: string): InspectionView => new InspectionView(path, inspect, trans);
    addDocuments(app, view, restorer, trans);
    const adapters = factory && new AdapterFolders(factory, path => api.adapters(contents.localPath(path)));
    const inspectable = (item: Contents.IModel | null): boolean =>
      item !== null && (item.type === 'directory' ? Boolean(adapters?.has(item.path)) : FILE.test(item.name));
    app.commands.addCommand(INSPECT, {
      label: args => (args['selected'] ? trans.__('Inspect') : trans.__('Inspect a Model File…')),
      caption: trans.__('Metadata, tensors by type, sizes and chat template of a model file or adapter'),
      icon: inspectIcon,
      isVisible: args => !args['selected'] || inspectable(selectedItem(factory)),
      execute: async args => {
        const item = args['selected'] ? selectedItem(factory) : browser && !args['path'] ? await askForFile(browser, known, trans) : null;
        const path = typeof args['path'] === 'string' ? args['path'] : item && (await fileOf(contents, item, trans));
        return path ? app.commands.execute('docmanager:open', { path, factory: FACTORY }) : null;
      }
    });
    if (browser) {
      palette?.addItem({ command: INSPECT, category: trans.__('Fine-tuning') });
    }
  }
};

/** The file whose document shows an item: of a folder its adapter's configuration, if it has one. */
async function fileOf(contents: Contents.IManager, item: Contents.IModel, trans: TranslationBundle): Promise<string | null> {
  if (item.type !== 'directory') {
    return item.path;
  }
  const inside = (await contents.get(item.path, { content: true })).content as Contents.IModel[];
  const file = inside.find(each => each.name === ADAPTER);
  if (!file) {
    await showDialog({
      title: trans.__('There is no adapter in %1', item.name || '/'),
      body: trans.__('The folder holds no %1. Choose a .gguf or .safetensors file in it, or the folder of an adapter.', ADAPTER),
      buttons: [Dialog.okButton({ label: trans.__('Close') })]
    });
  }
  return file?.path ?? null;
}
