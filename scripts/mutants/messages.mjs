/** Leaves the messages of errors unchanged: their wording decides nothing. */
import { declareValuePlugin, PluginKind } from '@stryker-mutator/api/plugin';

const REASON = 'the message of an error';
/** Functions that make an error of their arguments. */
const REFUSALS = new Set(['corrupt', 'outOfMemory', 'refuse', 'refuseOtherSum']);

const ignorer = {
  /**
   * @param {any} path a path of Babel
   * @returns {string | undefined} why it is left unchanged
   */
  shouldIgnore(path) {
    if (!path.isStringLiteral() && !path.isTemplateLiteral()) return undefined;
    for (let at = path; at.parentPath; at = at.parentPath) {
      const { parent, node } = at;
      if (at.parentPath.isNewExpression()) {
        const { callee, arguments: given } = /** @type {any} */ (parent);
        const isError = /Error$/.test(callee.name ?? '');
        // The first argument of a CodError is its code.
        const isCode = callee.name === 'CodError' && given[0] === node;
        return isError && !isCode ? REASON : undefined;
      }
      if (at.parentPath.isVariableDeclarator() || at.parentPath.isAssignmentExpression()) {
        const { id, left } = /** @type {any} */ (parent);
        return /^(message|advice|hint)$/.test((id ?? left).name ?? '') ? REASON : undefined;
      }
      if (at.parentPath.isCallExpression()) {
        const { callee } = /** @type {any} */ (parent);
        const isRefusal = REFUSALS.has(callee.name ?? '') || callee.object?.name === 'problems';
        return isRefusal ? REASON : undefined;
      }
      if (at.parentPath.isStatement() || at.parentPath.isFunction()) return undefined;
    }
    return undefined;
  },
};

export const strykerPlugins = [declareValuePlugin(PluginKind.Ignore, 'error-messages', ignorer)];
