"""What is said *about* a phrase: denied (不承诺保本) or quoted as a warning (请勿把验证码告诉他人)."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

from detectors.mandarin import Normal, fold_pattern

_REACH: Final = 7
"""Characters between the end of a negation and the phrase it governs."""
_WARNING_REACH: Final = 40
_AFTER_REACH: Final = 14

# Where 不, 没, 别 … stand without denying what follows.
_HARMLESS: Final = (
    "不用担心|不必担心|不要担心|不需要担心|不用着急|不要着急|不用怕|不用犹豫|不要犹豫|不用考虑|不用管|不要紧张|不用紧张"
    "|不担心|不着急|不紧张|不犹豫|不考虑|不相信|不要错过|不用想|不要不信|不要有顾虑|不用有顾虑|不要有压力|不用有压力"
    "|别担心|别着急|别紧张|别犹豫|别错过|别怕|别急|别想|别管|别不信|别的|别人|别家|别处|别墅|特别|分别|区别|级别|个别|性别|识别|鉴别|告别"
    "|不但|不仅|不光|不只|不止|不管|不论|不过|不怕|不瞒|不骗|不错|不亏|不赔|不然|不到|不久|不少|不断|不如|不同|不满|不好意思|不得不|不得已"
    "|不会亏|不会赔|不会有(?:任何)?(?:风险|损失|问题)|不可能亏|不可能赔|不存在(?:任何)?风险|不要钱|不收费|不花钱|不值得|不好说|不清楚|不知道|不知|不明白|不太|不说"
    "|不会骗|不会让您(?:吃亏|亏)|不会吃亏|不吃亏|不方便|不耽误|不影响|不限|不麻烦|不客气|不行|不给我|不处理|不解决|不理|不管我|不给|不答应|不让我"
    "|没问题|没事|没关系|没错|没(?:有)?(?:任何)?(?:风险|亏损|损失|波动|问题|办法|人管|人理|人处理|人解决|解决|处理|结果|回复|下文|到账|收到|说法)|没钱|没空|没人|没给|没有人"
    "|无风险|无任何风险|无忧|无论|无非|无所谓|无损|非常|除非|并非没|莫非|未来|未必不"
    "|信不信|管不管|赔不赔|是不是|要不要|能不能|会不会|有没有|好不好|对不对|行不行|可不可以|想不想|可以不可以|差不多|了不起|来不及|说不定|只不过|要不|要不然|不一定就|不一样|怎么不|为什么不|何不|不妨"
)
_HARMLESS_RE: Final = re.compile(fold_pattern(_HARMLESS))
_NEGATION_RE: Final = re.compile(
    fold_pattern(
        "从来不会|从来没有|从来不|从来没|从不|绝不会|绝不|决不|绝对不会|绝对不能|绝对不|并不是|并不会|并不|并没有|并没|并非"
        "|不能够|不能|不可以|不可能|不可|不会|不承诺|不保证|不是|不属于|不等于|不等同于|不代表|不意味着|不存在|不具有|不提供|不支持|不允许|不准|不许|不得"
        "|不应该|不应|不该|不敢|不要|不用|不必|不需要|不想|不再|不|没有办法|没办法|没有|没|未必|未曾|未|请勿|切勿|勿|别|莫|禁止|严禁|杜绝|拒绝|谈不上|哪有|哪里有|何来|难以|无法|无权"
    )
)
_WARNING_RE: Final = re.compile(
    fold_pattern(
        "请勿|切勿|千万不要|千万别|切记不要|一定不要|请不要|请您不要|请您别|请别|谨防|警惕|当心|小心|防范|防止|避免|严禁|禁止|[凡反返烦犯范][是事系][说收]|凡是|凡"
        "|(?:如果|假如|要是|若|遇到|碰到|一旦)(?:是)?(?:有)?(?:任何)?(?:人|陌生人|对方|骗子|谁|自称|陌生电话|什么人)"
        "|有人(?:会|要|让|说|叫|冒充|打电话|自称|向您|跟您|问您|以)|(?:有没有|是否有|是不是有)(?:什么|任何|陌生)?人"
        "|骗子|诈骗分子|不法分子|犯罪分子|诈骗团伙|骗局|诈骗(?:电话|短信|手段|套路)|冒充|假冒"
        "|(?:我们|我行|本行|银行|咱们|官方|正规|真正|工作人员|客服|客服人员|员工|任何人|任何机构|公检法)[^,]{0,8}?(?:绝对?不会|从不|从来不会|不会|不可能|绝不|无权|不能|不得|不允许|没有权利)(?:主动)?(?:向|跟|让|要求|索要|问|叫|打电话|通过|以任何|承诺|保证|收集|询问|泄露|透露|提供)"
        "|(?:对方|他们|那个人|那边|别人|之前有人|网上)(?:有没有|是不是|是否|跟您|说|让您|要求您|叫您|问您|告诉您)"
        "|您(?:有没有|是不是|是否)(?:把|将|曾经|给|向|收到|被)"
    )
)
_AFTER_RE: Final = re.compile(
    fold_pattern(
        "^[^,]{0,8}?(?:是不可能的|不可能的|是不可以|是不允许|不允许|是不合规|是违规|是违法|属于违规|属于违法|都是骗|是骗人|是骗局|是骗子|是诈骗|的是骗|的都是假|都是假的"
        "|是没有的|不存在的|这种说法|这样的说法|的说法|的产品是没有|是错误|是不对|是误导|是不行的|都是不可信|的都(?:是(?:不可?)?)?$|是不可信|都不可信|不可信|靠不住|不靠谱|都要小心|要警惕|都不要信|不能信|不要相信|别相信|不要轻信|是不能|我们不能|我不能|这个不能|是不会的|谁都不能保证|没法保证|不好说|都不能告诉|不能告诉|不要告诉|不要提供|不要透露|不要泄露|不能给|别告诉|不要给|请勿)"
    )
)


def is_denied(normal: Normal, start: int, end: int) -> bool:
    """Whether the phrase at ``start`` to ``end`` (indices into ``normal.text``) stands under a negation.

    A negation reaches over a few characters of the same clause; 没问题, 不但, 是不是 deny nothing.
    """
    pauses = bisect_right(normal.breaks, start)
    floor = max(normal.breaks[pauses - 1] if pauses else 0, start - _REACH - 6)
    window = normal.text[floor:start]
    if not window:
        return False
    harmless = [m.span() for m in _HARMLESS_RE.finditer(normal.text, floor, min(len(normal.text), start + 4))]
    denied = 0
    for match in _NEGATION_RE.finditer(normal.text, floor, start):
        if any(a <= match.start() < b for a, b in harmless):
            continue
        if start - match.end() <= _REACH:
            denied += 1
    # 不能不…, 没有不…: two negations affirm.
    return denied % 2 == 1


def is_warning(normal: Normal, start: int, end: int) -> bool:
    """Whether the phrase is quoted to warn of it: 凡是说保本的都是骗子, 如果有人问您要验证码."""
    text = normal.text
    floor = max(0, start - _WARNING_REACH)
    if any(m.end() <= start + 2 for m in _WARNING_RE.finditer(text, floor, min(len(text), start + 2))):
        return True
    return _AFTER_RE.search(text[end : end + _AFTER_REACH]) is not None
