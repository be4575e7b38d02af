/** Views of model files and adapter folders, which are never transferred: the server reads their headers. */

import { type ILabShell, ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ICommandPalette, MainAreaWidget, WidgetTracker } from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import { ABCWidgetFactory, type DocumentRegistry, DocumentWidget, TextModelFactory } from '@jupyterlab/docregistry';
import { FileDialog, IDefaultFileBrowser, IFileBrowserFactory } from '@jupyterlab/filebrowser';
import type { Contents } from '@jupyterlab/services';
import { ITranslator, nullTranslator, type TranslationBundle } from '@jupyterlab/translation';
import { AdapterFolders } from './adapter_folders.ts';
import { inspectIcon } from './icon.ts';
import { InspectionView } from './inspection_view.ts';
import { selectedItem } from './selection.ts';
import { ModelFiles } from './server.ts';

export const INSPECT = 'tunebook:inspect';
const FACTORY = 'Model Inspector';
const MODEL = 'tunebook-no-content';
const FILE = /\.(gguf|safetensors)$/i;

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
    const content = this.view(context.path);
    content.title.icon = inspectIcon;
    context.fileChanged.connect(() => void content.read(context.path));
    context.pathChanged.connect(() => void content.read(context.path));
    return new DocumentWidget({ content, context });
  }
}

function addDocuments(app: JupyterFrontEnd, view: (path: string) => InspectionView, restorer: ILayoutRestorer | null, trans: TranslationBundle): void {
  const registry = app.docRegistry;
  const types = [
    { name: 'tunebook-gguf', displayName: trans.__('GGUF model'), extensions: ['.gguf'] },
    { name: 'tunebook-safetensors', displayName: trans.__('Safetensors weights'), extensions: ['.safetensors'] }
  ];
  for (const type of types) {
    registry.addFileType({ ...type, mimeTypes: ['application/octet-stream'], fileFormat: 'base64', contentType: 'file', icon: inspectIcon });
  }
  registry.addModelFactory(new NoContentFactory());
  const names = types.map(type => type.name);
  const factory = new InspectionFactory(
    { name: FACTORY, label: trans.__('Model Inspector'), modelName: MODEL, fileTypes: names, defaultFor: names, readOnly: true },
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

/** Opens folders, which are no documents, in tabs of their own. */
class FolderTabs {
  #tracker = new WidgetTracker<MainAreaWidget<InspectionView>>({ namespace: 'tunebook-inspected-folders' });

  constructor(
    private readonly app: JupyterFrontEnd,
    private readonly view: (path: string) => InspectionView,
    restorer: ILayoutRestorer | null
  ) {
    void restorer?.restore(this.#tracker, {
      command: INSPECT,
      args: widget => ({ path: widget.content.path, folder: true }),
      name: widget => widget.content.path
    });
  }

  open(path: string): MainAreaWidget<InspectionView> {
    const known = this.#tracker.find(widget => widget.content.path === path);
    const widget = known ?? this.#made(path);
    this.app.shell.activateById(widget.id);
    return widget;
  }

  #made(path: string): MainAreaWidget<InspectionView> {
    const widget = new MainAreaWidget({ content: this.view(path) });
    widget.id = `tunebook-inspected-${path}`;
    widget.title.label = PathExt.basename(path) || path;
    widget.title.caption = path;
    widget.title.icon = inspectIcon;
    widget.title.closable = true;
    void this.#tracker.add(widget);
    (this.app.shell as ILabShell).add(widget, 'main');
    return widget;
  }
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
    const files = new ModelFiles(app.serviceManager.serverSettings, trans);
    const view = (path: string): InspectionView => new InspectionView(path, files.inspect, trans);
    addDocuments(app, view, restorer, trans);
    const tabs = new FolderTabs(app, view, restorer);
    const adapters = factory && new AdapterFolders(factory, files.adapters);
    const inspectable = (item: Contents.IModel | null): boolean =>
      item !== null && (item.type === 'directory' ? Boolean(adapters?.has(item.path)) : FILE.test(item.name));
    app.commands.addCommand(INSPECT, {
      label: args => (args['selected'] ? trans.__('Inspect') : trans.__('Inspect a model file')),
      caption: trans.__('Metadata, tensors by type, sizes and chat template of a model file or adapter'),
      icon: inspectIcon,
      isVisible: args => !args['selected'] || inspectable(selectedItem(factory)),
      execute: async args => {
        const path = args['path'];
        const chosen =
          typeof path === 'string'
            ? { path, type: args['folder'] ? 'directory' : 'file' }
            : args['selected']
              ? selectedItem(factory)
              : browser && (await askForFile(browser, known, trans));
        if (!chosen) {
          return null;
        }
        return chosen.type === 'directory' ? tabs.open(chosen.path) : app.commands.execute('docmanager:open', { path: chosen.path, factory: FACTORY });
      }
    });
    if (browser) {
      palette?.addItem({ command: INSPECT, category: trans.__('Fine-tuning') });
    }
  }
};
