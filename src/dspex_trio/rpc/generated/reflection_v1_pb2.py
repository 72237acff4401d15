"""Generated from grpc/reflection/v1/reflection.proto by tools/generate_protos.py. Do not edit."""

from ._pool import load

load(
    globals(),
    b'\n#grpc/reflection/v1/reflection.proto\x12\x12grpc.reflection.v1"\xf3\x02'
    b'\n\x17ServerReflectionRequest\x12\x12\n\x04host\x18\x01 \x01(\tR\x04host\x12*\n\x10file_by_fil'
    b'ename\x18\x03 \x01(\tH\x00R\x0efileByFilename\x126\n\x16file_containing_symbol\x18\x04 \x01('
    b'\tH\x00R\x14fileContainingSymbol\x12b\n\x19file_containing_extension\x18\x05 \x01(\x0b'
    b'2$.grpc.reflection.v1.ExtensionRequestH\x00R\x17fileContainingExte'
    b'nsion\x12B\n\x1dall_extension_numbers_of_type\x18\x06 \x01(\tH\x00R\x19allExtension'
    b'NumbersOfType\x12%\n\rlist_services\x18\x07 \x01(\tH\x00R\x0clistServicesB\x11\n\x0fmess'
    b'age_request"f\n\x10ExtensionRequest\x12\'\n\x0fcontaining_type\x18\x01 \x01(\tR\x0eco'
    b'ntainingType\x12)\n\x10extension_number\x18\x02 \x01(\x05R\x0fextensionNumber"\xae\x04\n\x18'
    b'ServerReflectionResponse\x12\x1d\n\nvalid_host\x18\x01 \x01(\tR\tvalidHost\x12V\n\x10o'
    b'riginal_request\x18\x02 \x01(\x0b2+.grpc.reflection.v1.ServerReflectionR'
    b'equestR\x0foriginalRequest\x12f\n\x18file_descriptor_response\x18\x04 \x01(\x0b2*.'
    b'grpc.reflection.v1.FileDescriptorResponseH\x00R\x16fileDescriptorR'
    b'esponse\x12r\n\x1eall_extension_numbers_response\x18\x05 \x01(\x0b2+.grpc.refle'
    b'ction.v1.ExtensionNumberResponseH\x00R\x1ballExtensionNumbersRespo'
    b"nse\x12_\n\x16list_services_response\x18\x06 \x01(\x0b2'.grpc.reflection.v1.Lis"
    b'tServiceResponseH\x00R\x14listServicesResponse\x12J\n\x0eerror_response\x18\x07'
    b' \x01(\x0b2!.grpc.reflection.v1.ErrorResponseH\x00R\rerrorResponseB\x12\n\x10'
    b'message_response"L\n\x16FileDescriptorResponse\x122\n\x15file_descripto'
    b'r_proto\x18\x01 \x03(\x0cR\x13fileDescriptorProto"j\n\x17ExtensionNumberRespons'
    b'e\x12$\n\x0ebase_type_name\x18\x01 \x01(\tR\x0cbaseTypeName\x12)\n\x10extension_number\x18'
    b'\x02 \x03(\x05R\x0fextensionNumber"T\n\x13ListServiceResponse\x12=\n\x07service\x18\x01 \x03'
    b'(\x0b2#.grpc.reflection.v1.ServiceResponseR\x07service"%\n\x0fServiceR'
    b'esponse\x12\x12\n\x04name\x18\x01 \x01(\tR\x04name"S\n\rErrorResponse\x12\x1d\n\nerror_code\x18\x01'
    b' \x01(\x05R\terrorCode\x12#\n\rerror_message\x18\x02 \x01(\tR\x0cerrorMessage2\x89\x01\n\x10Ser'
    b'verReflection\x12u\n\x14ServerReflectionInfo\x12+.grpc.reflection.v1.S'
    b'erverReflectionRequest\x1a,.grpc.reflection.v1.ServerReflection'
    b'Response(\x010\x01b\x06proto3'
)
