/**
 * Adds counters to the text of a source, for TypeScript and for AssemblyScript, whose grammar TypeScript reads.
 *
 * Each function, branch, loop body, case, and right side of a logical operator counts how often it runs. In
 * TypeScript, comparisons also report their two values, and allocations their lengths. runtime.ts has the functions
 * that are called.
 */

import ts from 'typescript';

/** Numbers of counters, shared by all files of a build. */
export interface Counters {
  next: number;
}

/** A literal of a source, for the dictionary of mutations. */
export type Literal = string | number | bigint;

export interface Instrumented {
  readonly text: string;
  readonly literals: readonly Literal[];
}

/** How a source reports. */
interface Style {
  /** A statement. */
  count(id: number): string;
  /** Whether expressions are instrumented too. */
  readonly hasExpressions: boolean;
}

const TYPESCRIPT: Style = { count: (id) => `__fuzz.hits[${id}]++`, hasExpressions: true };
const ASSEMBLYSCRIPT: Style = { count: (id) => `__hit(${id})`, hasExpressions: false };

const COMPARISONS: ReadonlyMap<ts.SyntaxKind, string> = new Map([
  [ts.SyntaxKind.EqualsEqualsEqualsToken, 'equal'],
  [ts.SyntaxKind.ExclamationEqualsEqualsToken, 'unequal'],
  [ts.SyntaxKind.LessThanToken, 'less'],
  [ts.SyntaxKind.LessThanEqualsToken, 'lessOrEqual'],
  [ts.SyntaxKind.GreaterThanToken, 'greater'],
  [ts.SyntaxKind.GreaterThanEqualsToken, 'greaterOrEqual'],
]);
const LOGICAL: ReadonlySet<ts.SyntaxKind> = new Set([
  ts.SyntaxKind.AmpersandAmpersandToken,
  ts.SyntaxKind.BarBarToken,
  ts.SyntaxKind.QuestionQuestionToken,
]);
/** What allocates as many elements as its first argument says. */
const ALLOCATES = /^(\w*Array|\w*ArrayBuffer|Buffer\.alloc\w*)$/;
/** Values whose comparisons tell nothing about the input. */
const USELESS = /^(undefined|null|true|false)$|^typeof\b/;

/** Text that is inserted at a position. Of several at one position, that of the outermost node is the outermost. */
class Insertions {
  readonly #before = new Map<number, string>();
  readonly #after = new Map<number, string>();

  /** Called for outer nodes first. */
  open(at: number, text: string): void {
    this.#before.set(at, (this.#before.get(at) ?? '') + text);
  }

  /** Called for outer nodes first. */
  close(at: number, text: string): void {
    this.#after.set(at, text + (this.#after.get(at) ?? ''));
  }

  apply(text: string, replaced: ReadonlyMap<number, { end: number; text: string }>): string {
    const places = new Set([...this.#before.keys(), ...this.#after.keys(), ...replaced.keys()]);
    let made = '';
    let done = 0;
    for (const at of [...places].sort((one, other) => one - other)) {
      made += text.slice(done, at) + (this.#after.get(at) ?? '') + (this.#before.get(at) ?? '');
      done = at;
      const other = replaced.get(at);
      if (other === undefined) continue;
      made += other.text;
      done = other.end;
    }
    return made + text.slice(done);
  }
}

/** Instruments the TypeScript source `text`. */
export function instrumented(path: string, text: string, counters: Counters): Instrumented {
  return new Instrumentor(path, text, counters, TYPESCRIPT).run();
}

/** Instruments the AssemblyScript source `text`. */
export function instrumentedCore(path: string, text: string, counters: Counters): string {
  const { text: made } = new Instrumentor(path, text, counters, ASSEMBLYSCRIPT).run();
  return `@external("fuzz", "hit")\ndeclare function __hit(id: u32): void;\n${made}`;
}

class Instrumentor {
  readonly #source: ts.SourceFile;
  readonly #text: string;
  readonly #counters: Counters;
  readonly #style: Style;
  readonly #insertions = new Insertions();
  readonly #replaced = new Map<number, { end: number; text: string }>();
  readonly #literals = new Set<Literal>();

  constructor(path: string, text: string, counters: Counters, style: Style) {
    this.#source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true, ts.ScriptKind.TS);
    this.#text = text;
    this.#counters = counters;
    this.#style = style;
  }

  run(): Instrumented {
    ts.forEachChild(this.#source, (node) => this.#visit(node));
    return { text: this.#insertions.apply(this.#text, this.#replaced), literals: [...this.#literals] };
  }

  #count(): string {
    return this.#style.count(this.#counters.next++);
  }

  /** Counts a body that may be a single statement. */
  #body(node: ts.Statement): void {
    if (ts.isBlock(node)) this.#insertions.open(node.getStart() + 1, `${this.#count()};`);
    else {
      this.#insertions.open(node.getStart(), `{${this.#count()};`);
      this.#insertions.close(node.end, '}');
    }
  }

  #expression(node: ts.Expression): void {
    this.#insertions.open(node.getStart(), `(${this.#count()},`);
    this.#insertions.close(node.end, ')');
  }

  #visit(node: ts.Node): void {
    if (ts.isTypeNode(node) || ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node)) return;
    if (ts.isImportDeclaration(node)) return;
    if (ts.isFunctionLike(node) && 'body' in node && node.body !== undefined) this.#functionBody(node.body as ts.Node);
    else if (ts.isIfStatement(node)) {
      // First, since both may end at one position, and the outer text is added first.
      if (node.elseStatement === undefined) this.#insertions.close(node.end, ` else {${this.#count()};}`);
      else this.#body(node.elseStatement);
      this.#body(node.thenStatement);
    } else if (ts.isIterationStatement(node, false)) this.#body(node.statement);
    else if (ts.isCaseOrDefaultClause(node)) {
      const colon = this.#text.indexOf(':', ts.isCaseClause(node) ? node.expression.end : node.getStart());
      this.#insertions.open(colon + 1, `${this.#count()};`);
      if (this.#style.hasExpressions && ts.isCaseClause(node)) this.#call('switchCase', node.expression);
    } else if (ts.isCatchClause(node)) this.#body(node.block);
    else if (this.#style.hasExpressions) this.#visitExpression(node);
    this.#literal(node);
    ts.forEachChild(node, (child) => this.#visit(child));
  }

  #functionBody(body: ts.Node): void {
    if (ts.isBlock(body)) this.#body(body);
    else if (this.#style.hasExpressions) this.#expression(body as ts.Expression);
  }

  #call(name: string, ...[first, last = first]: [ts.Expression, ts.Expression?]): void {
    this.#insertions.open(first.getStart(), `__fuzz.${name}(`);
    this.#insertions.close(last.end, ')');
  }

  #visitExpression(node: ts.Node): void {
    if (ts.isConditionalExpression(node)) {
      this.#expression(node.whenTrue);
      this.#expression(node.whenFalse);
    } else if (ts.isSwitchStatement(node)) this.#call('switchOn', node.expression);
    else if (ts.isBinaryExpression(node)) {
      const { kind } = node.operatorToken;
      if (LOGICAL.has(kind)) this.#expression(node.right);
      const comparison = COMPARISONS.get(kind);
      if (comparison === undefined) return;
      if (USELESS.test(node.left.getText()) || USELESS.test(node.right.getText())) return;
      this.#call(comparison, node.left, node.right);
      const { operatorToken } = node;
      this.#replaced.set(operatorToken.getStart(), { end: operatorToken.end, text: ',' });
    } else if (ts.isNewExpression(node) || ts.isCallExpression(node)) {
      const [length] = node.arguments ?? [];
      if (length !== undefined && !ts.isSpreadElement(length) && ALLOCATES.test(node.expression.getText()))
        this.#call('allocates', length);
    }
  }

  #literal(node: ts.Node): void {
    if (ts.isStringLiteral(node) || ts.isNoSubstitutionTemplateLiteral(node)) {
      if (node.text.length > 0 && node.text.length <= 24) this.#literals.add(node.text);
    } else if (ts.isNumericLiteral(node)) {
      const value = Number(node.text);
      if (value > 16) this.#literals.add(value);
    } else if (ts.isBigIntLiteral(node)) this.#literals.add(BigInt(node.text.slice(0, -1)));
  }
}
