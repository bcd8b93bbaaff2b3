"""A script for Chromium that finds texts that are hard to read."""

# The contrast of every text with its ground, for texts below 4.5 : 1.
PALE_TEXTS = """() => {
  const shade = (color) => {
    const [red, green, blue, alpha = 1] = color.match(/[\\d.]+/g).map(Number);
    const linear = [red, green, blue].map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return { light: 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2], alpha };
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement ?? each.getRootNode().host) {
      const found = shade(getComputedStyle(each).backgroundColor);
      if (found.alpha > 0.9) return found.light;
    }
    return 1;
  };
  const pale = [];
  const look = (root) => {
    for (const element of root.querySelectorAll("*")) {
      if (element.shadowRoot) look(element.shadowRoot);
      const nodes = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
      const text = nodes.map((node) => node.data).join("").trim();
      const style = getComputedStyle(element);
      if (!text || !element.checkVisibility({ opacityProperty: true }) || parseFloat(style.fontSize) < 1) continue;
      const [dark, light] = [shade(style.color).light, ground(element)].sort((a, b) => a - b);
      const contrast = (light + 0.05) / (dark + 0.05);
      if (contrast < 4.5) pale.push(`${text}: ${contrast.toFixed(1)}`);
    }
  };
  look(document.body);
  return pale;
}"""
